"""The pages that letters link to: verify an address, set a new password, join an organization.

The secret is in the fragment of the link, which the browser keeps to itself; the page sends it to auth's API when the
person says so. So a scanner that opens links uses none up, and no log has one.
"""

from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from notifier.pages import page

router = APIRouter(tags=["letters"], include_in_schema=False)


@router.get("/letters/{letter}")
async def letter_page(
    request: Request, letter: Literal["verify-email", "reset-password", "invitation"]
) -> HTMLResponse:
    """The page for whoever has a letter. The same for everybody."""
    return page(request, letter)
