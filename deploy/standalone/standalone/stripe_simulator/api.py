"""Stripe's API over HTTP: keys and versions checked, forms read, trouble on order, and the answer as JSON."""

import asyncio
import base64
import binascii
import hmac

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from standalone.stripe_simulator import parameters
from standalone.stripe_simulator.calls import Answer
from standalone.stripe_simulator.faults import Dropped, failed
from standalone.stripe_simulator.problems import StripeProblem
from standalone.stripe_simulator.shapes import API_VERSION, Thing
from standalone.stripe_simulator.state import Simulator


async def v1(request: Request) -> Response:
    """Any request below /v1."""
    simulator: Simulator = request.app.state.simulator
    method, path, key = request.method, request.url.path, request.headers.get("Idempotency-Key")
    try:
        _admitted(request, simulator.secret_key)
        params = await _params(request)
    except StripeProblem as problem:
        return JSONResponse(problem.body(), problem.status)
    fault = simulator.faults.take(method, path)
    if fault is None:
        return _response(simulator, simulator.calls.answer(method, path, params, key), key)
    done = simulator.calls.answer(method, path, params, key) if fault.acts else None
    await asyncio.sleep(fault.seconds)
    if fault.drop:
        return Dropped()
    if fault.status:
        return failed(fault.status)
    return _response(simulator, done or simulator.calls.answer(method, path, params, key), key)


def _response(simulator: Simulator, answer: Answer, key: str | None) -> Response:
    headers = {"Request-Id": simulator.world.request["id"] or "", "Stripe-Version": API_VERSION}
    if key:
        headers["Idempotency-Key"] = key
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    return JSONResponse(answer.body, answer.status, headers)


async def _params(request: Request) -> Thing:
    if request.method in {"GET", "DELETE"}:
        return parameters.decoded(request.url.query)
    try:
        return parameters.decoded((await request.body()).decode())
    except UnicodeDecodeError:
        raise StripeProblem(400, "invalid_request_error", "Invalid request: the body is not UTF-8.") from None


def _admitted(request: Request, secret_key: str) -> None:
    given = _key_of(request.headers.get("Authorization", ""))
    if not given:
        text = "You did not provide an API key. You need to provide your API key in the Authorization header."
        raise StripeProblem(401, "invalid_request_error", text)
    if not hmac.compare_digest(given.encode(), secret_key.encode()):
        raise StripeProblem(401, "invalid_request_error", f"Invalid API Key provided: {given[:8]}****")
    version = request.headers.get("Stripe-Version", API_VERSION)
    if version != API_VERSION:
        text = f"Invalid Stripe API version: {version}. The simulator plays {API_VERSION} only."
        raise StripeProblem(400, "invalid_request_error", text)


def _key_of(authorization: str) -> str:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    try:
        return base64.b64decode(rest).decode().partition(":")[0] if scheme.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        return ""
