"""Trouble on order: the next requests fail, hang, lose their connection, or fail after they acted."""

from dataclasses import dataclass, field

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send


@dataclass(slots=True)
class Fault:
    """What happens to the next `times` requests of that method (any if empty) whose path begins so.

    `acts`: the request is done first, and its answer kept under its idempotency key. Then `seconds` pass; then the
    connection is `drop`ped, or `status` is answered, or, with neither, the request is answered as if nothing had been.
    """

    times: int = 1
    method: str = ""
    path: str = "/v1/"
    status: int | None = None
    seconds: float = 0
    drop: bool = False
    acts: bool = False

    def meets(self, method: str, path: str) -> bool:
        """Whether this request is to be hit."""
        return self.times > 0 and self.method in ("", method) and path.startswith(self.path)


@dataclass(slots=True)
class Faults:
    """Those that are still to come, in the order in which they were ordered."""

    ordered: list[Fault] = field(default_factory=list)

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that hits this request, and one time less of it."""
        for fault in self.ordered:
            if fault.meets(method, path):
                fault.times -= 1
                self.ordered = [one for one in self.ordered if one.times > 0]
                return fault
        return None


class Dropped(Response):
    """The beginning of an answer, and then nothing: the client sees its connection close."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Announce a body and never send it."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})


def failed(status: int) -> Response:
    """Stripe's answer when it is asked too often, or is in trouble itself."""
    if status == 429:
        message, kind, code = "Request rate limit exceeded.", "invalid_request_error", "rate_limit"
        return JSONResponse({"error": {"type": kind, "code": code, "message": message}}, status)
    message = "An unknown error occurred (the simulator was told to fail)."
    return JSONResponse({"error": {"type": "api_error", "message": message}}, status)
