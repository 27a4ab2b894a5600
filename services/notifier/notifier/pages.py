"""Pages for people who come from an e-mail. They need nothing from elsewhere, and what is secret leaves no trace."""

import secrets
from typing import Any

from fastapi import Request
from starlette.responses import HTMLResponse

from notifier.rendering import templates
from notifier.settings import Settings


def page(request: Request, template: str, *, status: int = 200, **content: Any) -> HTMLResponse:
    """A page made of a template in `templates/pages`. Scripts and styles run by a nonce, and reach this origin only."""
    settings: Settings = request.app.state.notifier_settings
    nonce = secrets.token_urlsafe(16)
    html = templates.get_template(f"pages/{template}.html").render(
        product=settings.product_name, app=settings.app, nonce=nonce, **content
    )
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Robots-Tag": "noindex, nofollow",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    return HTMLResponse(html, status, headers)
