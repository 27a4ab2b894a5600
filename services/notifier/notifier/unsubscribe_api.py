"""The page that unsubscribes, for whoever has its link: a browser, or a mail program that does it at once (RFC 8058).

Opening it changes nothing, since scanners of mail open every link.
"""

from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from aragora.chassis.problems import Problem
from aragora.chassis.sealing import Sealer
from notifier import unsubscribing
from notifier.callers import clock_of, pool_of
from notifier.kinds import KINDS
from notifier.pages import page
from notifier.rendering import DIGEST, PREFERENCES
from notifier.unsubscribing import InvalidLink, Subscription

router = APIRouter(prefix="/api/notifications/unsubscribe", tags=["unsubscribing"], include_in_schema=False)

Token = Annotated[str, Path(max_length=unsubscribing.MAX_TOKEN)]


@router.get("/{token}")
async def ask(request: Request, token: Token) -> Response:
    """What the link is about, and a button."""
    found = _subscription(request, token)
    return _refused(request) if found is None else _page(request, found, "asked")


@router.post("/{token}")
async def unsubscribe(request: Request, token: Token) -> Response:
    """No more e-mail of this kind. Whatever is posted: the link alone says what."""
    found = _subscription(request, token)
    if found is None:
        return _refused(request)
    async with pool_of(request).acquire() as connection, connection.transaction():
        kinds = await unsubscribing.end(connection, found, clock_of(request)())
    # Relative to this page: it may stand behind a prefix.
    return _page(
        request, found, "ended", undo=f"{token}/undo?{urlencode({'kind': kinds}, doseq=True)}" if kinds else ""
    )


@router.post("/{token}/undo")
async def undo(request: Request, token: Token, kind: Annotated[list[str], Query(max_length=len(KINDS))]) -> Response:
    """E-mail of these kinds again."""
    found = _subscription(request, token)
    if found is None:
        return _refused(request)
    async with pool_of(request).acquire() as connection, connection.transaction():
        await unsubscribing.resume(connection, found, kind, clock_of(request)())
    return _page(request, found, "resumed")


def _subscription(request: Request, token: str) -> Subscription | None:
    sealer: Sealer = request.app.state.notifier_sealer
    try:
        found = unsubscribing.read_token(sealer, token)
    except InvalidLink:
        return None
    return found if unsubscribing.can_be_ended(found.kind) else None


def _page(request: Request, subscription: Subscription, state: str, *, undo: str = "") -> Response:
    kind = subscription.kind
    about = "Your daily digest" if kind == DIGEST else KINDS[kind].description
    return page(request, "unsubscribe", state=state, about=about, preferences=PREFERENCES, undo=undo)


def _refused(request: Request) -> Response:
    if "text/html" not in request.headers.get("Accept", ""):
        raise Problem(404, "This link is not one of ours, or was cut on the way; open it from the e-mail again.")
    return page(request, "unsubscribe", status=HTTPStatus.NOT_FOUND, state="refused")
