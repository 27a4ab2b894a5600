"""What a browser shows of the letters. Every address begins with the key: letters hold secrets."""

import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from standalone.mailbox.letters import KEPT, Letter, Letters

_templates = Environment(loader=PackageLoader("standalone.mailbox"), autoescape=True, undefined=StrictUndefined)
SHOWN_HEADERS = ("From", "To", "Date", "List-Unsubscribe", "Message-ID")
FORMS = {"html": "As a page", "text": "As text", "source": "Source"}
_PRIVATE = {"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""The address is a secret, and so is what it shows."""
_OF_PAGES = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; base-uri 'none'; form-action 'none'"
_SANDBOX = "allow-popups allow-popups-to-escape-sandbox"
_OF_LETTERS = (
    f"sandbox {_SANDBOX}; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"
)
"""A letter is somebody else's page: it runs nothing, loads nothing, and its links open beside it."""

Page = Callable[[Request], Awaitable[Response]]


def create_app(letters: Letters, key: str) -> Starlette:
    """The pages of these letters, for who knows the key."""

    async def front(request: Request) -> Response:
        found = letters.newest(request.query_params.get("to", ""))
        return _page("list.html", letters=found, kept=KEPT, to=request.query_params.get("to", ""))

    async def listing(request: Request) -> Response:
        found = letters.newest(request.query_params.get("to", ""), count=50)
        return JSONResponse([_told(letter) for letter in found], headers=_PRIVATE)

    async def letter(request: Request) -> Response:
        found = _found(letters, request)
        shown = request.query_params.get("as") or ("html" if found.part("html") else "text")
        if shown not in FORMS:
            raise HTTPException(404)
        headers = [(name, found.header(name)) for name in SHOWN_HEADERS if found.header(name)]
        return _page("letter.html", letter=found, headers=headers, shown=shown, forms=FORMS, sandbox=_SANDBOX)

    async def content(request: Request) -> Response:
        found = _found(letters, request)
        match request.path_params["form"]:
            case "html":
                return HTMLResponse(_beside(found.part("html")), headers=_PRIVATE | _policy(_OF_LETTERS))
            case "text":
                return PlainTextResponse(found.part("plain"), headers=_PRIVATE)
            case "source":
                return PlainTextResponse(found.source.decode(errors="replace"), headers=_PRIVATE)
        raise HTTPException(404)

    def locked(page: Page) -> Page:
        async def opened(request: Request) -> Response:
            if not secrets.compare_digest(request.path_params["key"].encode(), key.encode()):
                raise HTTPException(404)
            return await page(request)

        return opened

    return Starlette(
        routes=[
            Route("/{key}/", locked(front)),
            Route("/{key}/letters.json", locked(listing)),
            Route("/{key}/letters/{letter_id:int}", locked(letter)),
            Route("/{key}/letters/{letter_id:int}/{form}", locked(content)),
        ]
    )


def _policy(policy: str) -> dict[str, str]:
    return {"Content-Security-Policy": policy}


def _page(template: str, **content: Any) -> Response:
    html = _templates.get_template(template).render(**content)
    return HTMLResponse(html, headers=_PRIVATE | _policy(f"{_OF_PAGES}; frame-ancestors 'none'"))


def _found(letters: Letters, request: Request) -> Letter:
    found = letters.find(request.path_params["letter_id"])
    if found is None:
        raise HTTPException(404)
    return found


def _told(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.letter_id,
        "received_at": letter.received_at.isoformat(),
        "to": letter.recipients,
        "subject": letter.subject,
        "text": letter.part("plain"),
        "html": letter.part("html"),
        "headers": {name: letter.header(name) for name in SHOWN_HEADERS if letter.header(name)},
    }


def _beside(html: str) -> str:
    """The page, its links opening in a tab of their own: in the frame they would be closed in."""
    target = '<base target="_blank">'
    opened, count = re.subn(r"<head\b[^>]*>", lambda head: head[0] + target, html, count=1, flags=re.IGNORECASE)
    return opened if count else target + html
