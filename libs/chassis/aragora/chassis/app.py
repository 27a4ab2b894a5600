"""The HTTP side of a service: one shape of errors, correlation ids, access log, metrics, probes, and a graceful end.

`create_app` takes routers, so that several services can stand in one application; each keeps its own lifespan.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from http import HTTPStatus
from types import FrameType
from typing import Any

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import Span, StatusCode
from prometheus_client import Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aragora.chassis import probes, problems, tracing
from aragora.chassis.probes import PROBES, Check
from aragora.chassis.problems import Problem, responses
from aragora.chassis.security import ServiceKey
from aragora.chassis.telemetry import redact_text
from aragora.chassis.transient import is_transient
from aragora.contracts.ids import new_id

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

MAX_BODY_BYTES = 8 * 1024 * 1024

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_log = structlog.get_logger(__name__)
_seconds = Histogram("http_request_seconds", "Time to answer, by route template", ["method", "route", "status"])


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = dict(problems.SCHEMA)
            # FastAPI documents its own shape of 422, which is never sent here
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
            for operation in (each for path in document["paths"].values() for each in path.values()):
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    operation["responses"]["422"] = responses(422)[422]
        return super().openapi()


def create_app(
    *,
    title: str,
    version: str,
    routers: Sequence[APIRouter],
    lifespans: Sequence[Lifespan] = (),
    readiness: Mapping[str, Check] | None = None,
    service_keys: Sequence[ServiceKey] = (),
    max_body_bytes: int = MAX_BODY_BYTES,
    description: str = "",
) -> FastAPI:
    """An application with these routes.

    Args:
        title: its name in the OpenAPI document.
        version: of the application.
        routers: the routes of one service or of several.
        lifespans: entered in order before the first request, left in reverse order after the last.
        readiness: what `/readyz` asks, by name. A check that raises, or takes over 2 s, makes the service unready.
        service_keys: whom `security.authenticated` knows.
        max_body_bytes: a longer request body is refused with 413.
        description: for the OpenAPI document.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for enter in lifespans:
                await stack.enter_async_context(enter(app))
            yield

    # FastAPI's own spans would tell paths and query strings: ours are made in `_Edge`.
    untold = TelemetryConfig(tracing=False, metrics=False, logs=False, auto_configure=False)
    app = _App(
        title=title,
        version=version,
        description=description,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=untold,
    )
    app.state.service_keys = tuple(service_keys)
    app.state.trust = None
    app.state.readiness = dict(readiness or {})
    app.state.dispensable = set()  # of the checks: without those the service is ready all the same
    app.state.asked = {}
    app.state.draining = False
    app.add_exception_handler(HTTPException, problems.on_http_exception)
    app.add_exception_handler(RequestValidationError, problems.on_invalid_request)
    app.add_middleware(_Edge, max_body_bytes=max_body_bytes)
    for router in (probes.router, *routers):
        app.include_router(router)
    return app


class _Edge:
    """The outermost middleware, plain ASGI. Whatever escapes from within is logged here, once, and answered."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        correlation_id = _correlation_id(headers)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
        started_at = time.perf_counter()
        status, body_bytes = 0, 0
        origins = ({"traceparent": headers.get("traceparent", "")},)

        async def limited_receive() -> Message:
            nonlocal body_bytes
            message = await receive()
            body_bytes += len(message.get("body", b""))
            if body_bytes > self._max_body_bytes:
                raise self._too_large()
            return message

        async def tagged_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Correlation-ID"] = correlation_id
            await send(message)

        with nullcontext() if scope["path"] in PROBES else tracing.span("HTTP", "SERVER", None, origins) as span:
            try:
                length = headers.get("content-length", "")
                if length.isdigit() and int(length) > self._max_body_bytes:
                    await self._too_large().response()(scope, receive, tagged_send)
                else:
                    await self._app(scope, limited_receive, tagged_send)
            except Exception as error:
                if status:  # half an answer is out: only cutting the connection can tell
                    raise
                await _unexpected(error).response()(scope, receive, tagged_send)
            finally:
                _observe(scope, status, time.perf_counter() - started_at, span)

    def _too_large(self) -> Problem:
        return Problem(413, f"The body exceeds {self._max_body_bytes} bytes; send less at a time.")


def _correlation_id(headers: Headers) -> str:
    """What the caller calls it, or else the trace that the caller is in, or else a new one."""
    given = tracing.given_in(headers)
    # It goes into logs and events: what looks like a credential is none.
    if given is not None and redact_text(given) == given:
        return given
    parent = tracing.parent_in(headers.get("traceparent", ""))
    return parent[0] if parent else str(new_id())


def _unexpected(error: Exception) -> Problem:
    if is_transient(error):
        _log.warning("a server this request needs is away", reason=repr(error))
        return Problem(503, "A server this needs is away; try again.", headers={"Retry-After": "1"})
    _log.error("unexpected failure", exc_info=error)
    return Problem(500, "This is our mistake; it is logged under the correlation id.")


def _observe(scope: Scope, status: int, seconds: float, span: Span | None) -> None:
    route = getattr(scope.get("route"), "path", "unmatched")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    _seconds.labels(method, route, status).observe(seconds)
    if span is not None:
        span.update_name(f"{method} {route}")
        span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            span.set_status(StatusCode.ERROR)
    # A log line costs as much as a small request: what went well is counted above, and told at the level debug.
    level = logging.DEBUG if status < HTTPStatus.BAD_REQUEST or route in PROBES else logging.INFO
    if logging.getLogger(__name__).isEnabledFor(level):
        # Not the path: somebody may have put a secret there that nothing gives away as one.
        _log.log(level, "request", method=method, route=route, status=status, milliseconds=round(seconds * 1e3, 2))


class _Server(uvicorn.Server):
    """Says "not ready" for a while before it stops listening, so that a load balancer sends nobody any more."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_seconds: float) -> None:
        super().__init__(config)
        self._state = app.state
        self._drain_seconds = drain_seconds
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._state.draining:  # the second time somebody is impatient
            self.should_exit = self.force_exit = True
        self._state.draining = True
        self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_seconds, self._stop_listening)

    def _stop_listening(self) -> None:
        self.should_exit = True


async def serve(
    app: FastAPI, host: str, port: int, *, drain_seconds: float = 0.0, grace_seconds: int | None = 30
) -> None:
    """Serves until SIGTERM or SIGINT, then drains: unready for `drain_seconds`, then no new connections, then requests
    in flight get `grace_seconds` to finish, then the lifespans end. Run it with `uvloop.run`.

    Raises:
        SystemExit: the address is in use, or a lifespan failed to start; what went wrong is in the log.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=grace_seconds,
    )
    await _Server(config, app, drain_seconds).serve()


async def serve_probes(title: str, readiness: Mapping[str, Check], host: str, port: int, stop: asyncio.Event) -> None:
    """Serves a worker's probes and metrics until `stop` is set. A signal that ends the serving sets it too."""
    app = create_app(title=title, version="1", routers=(), readiness=readiness)
    serving = asyncio.create_task(serve(app, host, port))
    await asyncio.wait({serving, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    # A signal ends it too, unless it came before it was listened to.
    await asyncio.wait({serving}, timeout=1)
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving
