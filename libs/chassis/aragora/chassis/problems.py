"""Every error answer has one shape: problem details (RFC 9457), with the wrong fields listed in `errors`."""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
SCHEMA: Mapping[str, Any] = {
    "title": "Problem",
    "description": "Problem details, RFC 9457.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "errors"],
    "properties": {
        "type": {"type": "string", "description": "about:blank: the title says what kind of problem it is."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong here, and what to do."},
        "errors": {
            "type": "array",
            "description": "The wrong fields, if that is the problem.",
            "items": {
                "type": "object",
                "required": ["index", "field", "message"],
                "properties": {
                    "index": {"type": ["integer", "null"], "description": "Which item of a batch, from 0."},
                    "field": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}


# RFC 9110's words, where Python has had others before 3.13
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


def title_of(status: int) -> str:
    """The status' phrase, the same in every version of Python."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


class Problem(HTTPException):
    """An answer that is an error. `errors` are (index in a batch or None, field, message).

    It is a Starlette HTTPException because FastAPI turns any other one, raised while a body is read, into a bare 400.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Iterable[tuple[int | None, str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.title = title_of(status)
        self.errors = tuple(errors)

    def response(self) -> Response:
        errors = [{"index": index, "field": field, "message": message} for index, field, message in self.errors]
        content = {"type": "about:blank", "title": self.title, "status": self.status_code, "detail": self.detail}
        return Response(
            json.dumps(content | {"errors": errors}), self.status_code, dict(self.headers or {}), media_type=MEDIA_TYPE
        )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What to give a route or router as `responses=`, so that the OpenAPI document tells of these problems."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": title_of(status), "content": content} for status in statuses}


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answers what routes and Starlette itself (404, 405) raise."""
    if isinstance(error, Problem):
        return error.response()
    if not isinstance(error, HTTPException):  # Starlette's handlers are typed for any exception
        raise error
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette names the methods of one of the path's routes; RFC 9110 (10.2.1) wants those of all
        path = getattr(request.scope.get("route"), "path", "")
        methods = request.app.openapi()["paths"].get(path, ())
        headers |= {"Allow": ", ".join(sorted(map(str.upper, methods)))} if methods else {}
    return Problem(error.status_code, str(error.detail), headers=headers).response()


async def on_invalid_request(_: Request, error: Exception) -> Response:
    """Answers what FastAPI's validation refuses: 400 where the body is not JSON, 422 where it is but does not fit."""
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return Problem(400, f"The body is not valid JSON: {found[0]['ctx']['error']}").response()
    fields = [_located(one["loc"], one["msg"]) for one in found]
    return Problem(422, "Mend the fields listed in errors.", errors=fields).response()


def _located(location: tuple[int | str, ...], message: str) -> tuple[int | None, str, str]:
    # FastAPI says ("body", 3, "tokens_in") or ("query", "limit")
    where, *rest = location
    index = rest.pop(0) if rest and isinstance(rest[0], int) and where == "body" else None
    return index if isinstance(index, int) else None, ".".join(map(str, rest)) or str(where), message
