"""What a walk through every route needs: who may ask, and what each is to be told."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute, Route

from auth import main as auth
from auth.settings import Settings as AuthSettings
from billing import main as billing
from billing.settings import Settings as BillingSettings
from metering import main as metering
from metering.settings import Settings as MeteringSettings
from notifier import main as notifier
from notifier.settings import Settings as NotifierSettings
from standalone import gateway

UNKNOWN = ("nobody", "malformed", "expired", "revoked", "revoked_key")
"""Callers without a credential that is good."""
GOOD = (
    "stranger", "member", "admin", "owner", "operator",
    "service", "reading_service", "reading_key", "writing_key", "strangers_key",
)  # fmt: skip
CALLERS = (*UNKNOWN, *GOOD)


@dataclass(frozen=True, slots=True)
class Kind:
    """For whom a route is, in what organization A it is asked about. `open`: also for those who are nobody."""

    name: str
    admits: frozenset[str]
    open: bool = False


def _kind(name: str, *admits: str) -> Kind:
    return Kind(name, frozenset(admits))


PUBLIC = Kind("public", frozenset(GOOD), open=True)
ANY_CREDENTIAL = _kind("any credential", *GOOD)
PEOPLE = _kind("people only", "stranger", "member", "admin", "owner", "operator")
MEMBERS = _kind("own organization: member", "member", "admin", "owner", "operator")
ADMINS = _kind("own organization: admin", "admin", "owner", "operator")
OWNERS = _kind("own organization: owner", "owner", "operator")
IN_PERSON = _kind("own organization: member, in person", "member", "admin", "owner")
ADMINS_IN_PERSON = _kind("own organization: admin, in person", "admin", "owner")
OPERATORS = _kind("operator only", "operator", "service")
SUBSCRIBERS = _kind("own organization: member, and the operator's services", *MEMBERS.admits, "service")
THEMSELF = _kind("own organization: that member, and the operator", "member", "operator", "service")
DECIDERS = _kind("own organization: admin, and the operator's services", *ADMINS.admits, "service")
_READING = ("service", "reading_service", "reading_key")
PRICE_READERS = _kind("people, and keys with usage.read", *PEOPLE.admits, *_READING, "strangers_key")
READERS = _kind("own organization: member, and keys with usage.read", *MEMBERS.admits, *_READING)
ADMIN_READERS = _kind("own organization: admin, and keys with usage.read", *ADMINS.admits, *_READING)
WRITERS = _kind("own organization: keys with usage.write", "operator", "service", "writing_key")
CHECKERS = _kind("own organization: member, and keys with usage.write", *MEMBERS.admits, "service", "writing_key")


@dataclass(frozen=True, slots=True)
class Entry:
    """A route, for whom it is, and a request of it that fails for no reason but who asks.

    `answer`: what those are told who may. It may be a refusal that comes after the question who asks, where success
    would do harm. `instead`: what single callers are told, for whom it is another. `{…}` in the path, the body and the
    query are names of the world in which it is asked.
    """

    kind: Kind
    method: str
    path: str
    answer: int | tuple[int, ...] = 200
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, int] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    """Which of the world's names stands for a parameter of the path, if it is not the one of the same name."""
    ends_session: bool = False
    """Whoever asks must sign in again."""

    @property
    def route(self) -> tuple[str, str]:
        """What names it."""
        return self.method, self.path

    def address(self, names: Mapping[str, str]) -> str:
        """The path in a world that has these names."""
        return self.path.format_map({**names, **{parameter: names[name] for parameter, name in self.where.items()}})

    def expected(self, caller: str) -> tuple[int, ...]:
        """The statuses with which a caller is answered."""
        if caller in self.instead:
            return (self.instead[caller],)
        if caller in self.kind.admits or self.kind.open:
            return self.answer if isinstance(self.answer, tuple) else (self.answer,)
        return (401,) if caller in UNKNOWN else (403,)


def applications() -> dict[str, FastAPI]:
    """Every application there is, made as it is in production, but not started."""
    given = {"DATABASE_URL": "postgresql://nowhere", "ARAGORA_SEALING_KEYS": "seals-nothing" * 4}
    of_auth = AuthSettings.model_validate(given)
    of_metering = MeteringSettings.model_validate(given)
    of_billing = BillingSettings.model_validate(given)
    of_notifier = NotifierSettings.model_validate(given)
    return {
        "auth": auth.create_app(of_auth),
        "metering": metering.create_app(of_metering),
        "billing": billing.create_app(of_billing),
        "notifier": notifier.create_app(of_notifier),
        "gateway": gateway.create_app(of_auth, of_metering, of_billing, of_notifier),
    }


def routes_of(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route, those of documents and probes too. HEAD and OPTIONS follow from others."""
    return [(method, path) for route in app.routes for method, path in _walk(route)]


def _walk(route: BaseRoute) -> Iterator[tuple[str, str]]:
    included = getattr(route, "original_router", None)
    if included is not None:
        for inner in included.routes:
            yield from _walk(inner)
        return
    assert isinstance(route, Route), f"{route!r} is of a kind that nobody has thought of"
    for method in sorted((route.methods or set()) - {"HEAD", "OPTIONS"}):
        yield method, route.path


def filled(template: Any, names: Mapping[str, str]) -> Any:
    """The template with its `{…}` filled in, at any depth."""
    if isinstance(template, str):
        return template.format_map(names)
    if isinstance(template, Mapping):
        return {name: filled(value, names) for name, value in template.items()}
    if isinstance(template, list):
        return [filled(value, names) for value in template]
    return template
