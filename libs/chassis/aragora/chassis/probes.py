"""What whoever runs a service asks it: does it live, can it work, what has it counted."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from aragora.chassis.metrics import service_ready
from aragora.chassis.problems import Problem, responses

Check = Callable[[], Awaitable[object]]
"""Raises what is wrong."""

READINESS_SECONDS = 2.0
READINESS_GRACE_SECONDS = 0.1
"""For a check to say itself that it took too long."""
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})

router = APIRouter(tags=["operations"])
_log = structlog.get_logger(__name__)


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """The process runs."""
    return {"status": "alive"}


@router.get("/readyz", responses=responses(503))
async def ready(request: Request) -> dict[str, str | list[str]]:
    """The service can do its work now; `missing` names what it does without. Otherwise 503, and `errors` says why."""
    state = request.app.state
    if state.draining:
        raise Problem(503, "The service is stopping.")
    checks: dict[str, Check] = state.readiness
    found = await asyncio.gather(*(_missing(name, check, state.asked) for name, check in checks.items()))
    missing = [reason for reason in found if reason]
    needed = [reason for reason in missing if reason[1] not in state.dispensable]
    if needed:
        raise Problem(503, "Not ready: " + ", ".join(name for _, name, _ in needed), errors=missing)
    return {"status": "ready", "missing": [name for _, name, _ in missing]} if missing else {"status": "ready"}


async def _missing(name: str, check: Check, asked: dict[str, asyncio.Future[None]]) -> tuple[None, str, str] | None:
    """`asked`: what is being asked. A check of a server that hangs does not end when it ought to, and stays alone."""
    asking = asked.get(name)
    if asking is None:
        asking = asked[name] = asyncio.ensure_future(_within(READINESS_SECONDS, check))
        asking.add_done_callback(lambda done: (asked.pop(name), done.cancelled() or done.exception()))
    await asyncio.wait({asking}, timeout=READINESS_SECONDS + READINESS_GRACE_SECONDS)
    error = asking.exception() if asking.done() else TimeoutError()
    service_ready.labels(name).set(error is None)
    if error is None:
        return None
    _log.warning("not ready", check=name, reason=repr(error))
    return None, name, type(error).__name__


async def _within(seconds: float, check: Check) -> None:
    async with asyncio.timeout(seconds):
        await check()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics() -> Response:
    """Prometheus metrics of this process."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
