"""What Stripe answers when it refuses: one exception, whose `body()` is the JSON of Stripe's errors."""

from typing import Any


class StripeProblem(Exception):
    """A refusal, as Stripe words it; `status` is the HTTP status that goes with it."""

    def __init__(self, status: int, kind: str, message: str, *, code: str | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.more = {name: value for name, value in more.items() if value is not None}

    def body(self) -> dict[str, Any]:
        """Stripe's `{"error": {…}}`."""
        error: dict[str, Any] = {"type": self.kind, "message": str(self)} | self.more
        if self.code:
            error |= {
                "code": self.code,
                "doc_url": f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}",
            }
        return {"error": error}


def invalid(message: str, param: str | None = None, code: str | None = None) -> StripeProblem:
    """400: the request cannot be done as it stands."""
    return StripeProblem(400, "invalid_request_error", message, code=code, param=param)


def missing(kind: str, object_id: str, param: str = "id") -> StripeProblem:
    """404 `resource_missing`: there is no such object (Stripe answers so for another account's objects too)."""
    name = kind.rsplit(".", 1)[-1].replace("_", " ")
    message = f"No such {name}: '{object_id}'"
    return StripeProblem(404, "invalid_request_error", message, code="resource_missing", param=param)


def unsupported(what: str, param: str | None = None) -> StripeProblem:
    """400: Stripe can do this and the simulator cannot; better refused than quietly left out."""
    return invalid(f"The Stripe simulator does not do {what}; Stripe itself does.", param, "simulator_unsupported")
