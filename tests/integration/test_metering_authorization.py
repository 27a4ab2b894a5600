"""Who may do what: every route, with no credential, a stranger's, a colleague's and each service key."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from metering_platform import MeteringPlatform, metering_platform
from one_service import KEYS, bearer, checked, token
from servers import PostgresServer
from trust import KeysOfAuth, answering_for_auth
from usage import native

from aragora.billing.jwt_auth import create_access_token
from metering.main import create_app
from metering.settings import Settings

ORG, OTHER = "org_ours", "org_theirs"
LETTER = "01a20000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
async def keys(platform: MeteringPlatform) -> AsyncIterator[KeysOfAuth]:
    async with answering_for_auth(platform.bus_url) as answering:
        yield answering


@pytest.fixture(scope="module")
async def platform(
    postgres_server: PostgresServer, metering_template: str, nats_server: str
) -> AsyncIterator[MeteringPlatform]:
    async with metering_platform(postgres_server, metering_template, nats_server) as running:
        await running.record(
            native(org_id=ORG, id="ann's", user_id="ann"),
            native(org_id=ORG, id="bob's", user_id="bob", tokens_in=7),
            native(org_id=OTHER, id="eve's", user_id="eve"),
        )
        yield running


@dataclass(frozen=True)
class Access:
    """What a route answers to whom. `scope` is the key's that it needs; `program`: an API key of the organization."""

    scope: str | None
    stranger: int = 403
    member: int = 403
    owner: int = 403
    service: int = 200
    program: int = 200
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


READ_OWN = Access("usage.read", stranger=200, member=200, owner=200)
"""A stranger who is an owner gets her own organization's month, in which the person has no share: see below."""
OPERATOR = Access("operator", service=404, program=403)
ROUTES: dict[tuple[str, str], Access] = {
    ("POST", "/api/usage/events"): Access("usage.write", service=422, program=422, body=[]),
    ("GET", "/api/usage/events"): Access("usage.read", member=200, owner=200, query={"org_id": ORG}),
    ("GET", "/api/usage/organizations/{org_id}/summary"): Access("usage.read", owner=200),
    ("GET", "/api/usage/periods"): Access("usage.read", member=200, owner=200, query={"org_id": ORG}),
    ("GET", "/api/usage/budgets"): Access("usage.read", owner=200, query={"org_id": ORG}),
    ("PUT", "/api/usage/budgets/{budget_id}"): Access(
        "operator", owner=200, program=403, query={"org_id": ORG}, body={"amount_usd": "100"}
    ),
    ("DELETE", "/api/usage/budgets/{budget_id}"): Access(
        "operator", owner=404, service=404, program=403, query={"org_id": ORG}
    ),
    ("GET", "/api/subscription/usage/{user_id}"): READ_OWN,
    ("GET", "/api/subscription/usage/{user_id}/trends"): READ_OWN,
    ("GET", "/api/subscription/dashboard/{user_id}"): READ_OWN,
    ("GET", "/api/subscription/pricing"): Access("usage.read", stranger=200, member=200, owner=200),
    ("POST", "/api/usage/limits/check"): Access(
        "usage.write",
        stranger=404,
        member=404,
        owner=404,
        service=422,
        program=404,
        body={"operations": [{"provider": "openai"}]},
    ),
    ("POST", "/api/usage/reservations"): Access("usage.write", service=422, program=422, body={}),
    ("GET", "/api/usage/reservations/{reservation_id}"): Access("usage.write", service=422, program=404),
    ("POST", "/api/usage/reservations/{reservation_id}/release"): Access("usage.write", service=422, program=404),
    ("POST", "/api/usage/reservations/{reservation_id}/extend"): Access(
        "usage.write", service=422, program=422, body={}
    ),
    ("GET", "/api/usage/dead-letters"): Access("operator", program=403),
    ("GET", "/api/usage/dead-letters/{letter_id}"): OPERATOR,
    ("POST", "/api/usage/dead-letters/{letter_id}/retry"): OPERATOR,
    ("POST", "/api/usage/dead-letters/{letter_id}/discard"): OPERATOR,
}
PAGES = ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
OPEN_TO_ALL = {("GET", path) for path in ("/healthz", "/readyz", "/metrics", *PAGES)}


def routes_of_the_app() -> set[tuple[str, str]]:
    """Every route there is, also those that the OpenAPI document does not tell of."""
    app = create_app(Settings(database_url="postgresql://nowhere"))
    waiting: list[Any] = list(app.routes)
    found: set[tuple[str, str]] = set()
    while waiting:
        route = waiting.pop()
        router = getattr(route, "original_router", None)
        if router is not None:
            waiting += router.routes
        else:
            found |= {(method, route.path) for method in route.methods if method != "HEAD"}
    documented = app.openapi()["paths"]
    assert {(method.upper(), path) for path, operations in documented.items() for method in operations} <= found
    return found


async def ask(platform: MeteringPlatform, route: tuple[str, str], key: str | None) -> httpx.Response:
    (method, path), access = route, ROUTES[route]
    budget_id = f"of-{method.lower()}"
    path = path.format(org_id=ORG, user_id="ann", letter_id=LETTER, reservation_id=LETTER, budget_id=budget_id)
    return checked(
        await platform.client.request(method, path, params=access.query, json=access.body, headers=bearer(key))
    )


def test_every_route_is_in_the_table():
    assert routes_of_the_app() == ROUTES.keys() | OPEN_TO_ALL


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_access(platform: MeteringPlatform, keys: KeysOfAuth, route: tuple[str, str]):
    access = ROUTES[route]
    programs = {scope: keys.issue(ORG, (scope,))[0] for scope in ("usage.read", "usage.write")}
    foreign = keys.issue(OTHER, ("usage.read", "usage.write"))[0]
    operator = create_access_token("root", "root@example.com", operator=True)
    who: dict[str, tuple[str | None, int]] = {
        "nobody": (None, 401),
        "an unknown key": ("svc_" + "x" * 43, 401),
        "a stranger": (token("eve", OTHER, "owner"), access.stranger),
        "a stranger of the same name": (token("ann", OTHER), access.stranger),
        "the member herself": (token("ann", ORG), access.member),
        "another member": (token("bob", ORG), 403 if "{user_id}" in route[1] else access.member),
        "an admin": (token("zoe", ORG, "admin"), access.owner),
        "the owner": (token("zoe", ORG, "owner"), access.owner),
        **{f"a {scope} key": (key, access.service if scope == access.scope else 403) for scope, key in KEYS.items()},
        **{f"a program that may {scope}": (key, access.program if scope == access.scope else 403)
           for scope, key in programs.items()},
        "a program without a known key": ("ara_" + "x" * 43, 401),
    }  # fmt: skip
    if ORG in str(access.query) or "{org_id}" in route[1]:
        who |= {"a program of another organization": (foreign, 403), "an operator in person": (operator, access.owner)}
    elif access.scope == "operator":
        who["an operator in person"] = (operator, access.service)
    for name, (key, status) in who.items():
        assert (await ask(platform, route, key)).status_code == status, name


@pytest.mark.parametrize("route", sorted(OPEN_TO_ALL), ids=" ".join)
async def test_what_is_open_to_all(platform: MeteringPlatform, route: tuple[str, str]):
    assert (await platform.client.get(route[1])).status_code == 200


async def test_a_path_tells_the_methods_of_all_its_routes(platform: MeteringPlatform):
    answer = checked(await platform.client.options("/api/usage/events"))
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")


async def test_nobody_sees_into_another_organization(platform: MeteringPlatform):
    namesake = token("ann", OTHER)
    month = await platform.get("/api/subscription/usage/ann", key=namesake, billing_period="2026-06")
    assert month.json()["data"]["org_id"] == OTHER
    assert month.json()["data"]["user"]["total_events"] == 0
    eve = token("eve", OTHER, "owner")
    month = await platform.get("/api/subscription/usage/ann", key=eve, billing_period="2026-06")
    assert month.json()["data"]["org_id"] == OTHER
    assert (month.json()["data"]["total_events"], month.json()["data"]["user"]["total_events"]) == (1, 0)
    for path in ("/api/subscription/usage/eve", "/api/subscription/usage/eve/trends", "/api/usage/events"):
        assert (await platform.get(path, key=eve, org_id=ORG)).status_code == 403
    log = (await platform.get("/api/usage/events", key=eve)).json()
    assert [each["id"] for each in log["events"]] == ["eve's"]
    assert (await platform.get("/api/usage/events", key=eve, id="ann's")).json()["events"] == []


async def test_a_member_sees_only_her_own_events(platform: MeteringPlatform):
    ann = token("ann", ORG)
    for filters in ({}, {"user_id": "ann"}, {"org_id": ORG}):
        log = (await platform.get("/api/usage/events", key=ann, **filters)).json()
        assert [each["id"] for each in log["events"]] == ["ann's"]
    assert (await platform.get("/api/usage/events", key=ann, user_id="bob")).status_code == 403
    owner = token("ann", ORG, "owner")
    log = (await platform.get("/api/usage/events", key=owner)).json()
    assert sorted(each["id"] for each in log["events"]) == ["ann's", "bob's"]
    assert (await platform.get("/api/subscription/usage/bob", key=owner)).status_code == 200


async def test_a_person_without_an_organization_sees_nothing(platform: MeteringPlatform):
    for role in ("member", "owner"):
        lonely = token("ann", None, role)
        for path in ("/api/usage/events", "/api/subscription/usage/ann", "/api/subscription/usage/ann/trends"):
            assert (await platform.get(path, key=lonely)).status_code == 403
            assert (await platform.get(path, key=lonely, org_id=ORG)).status_code == 403
        assert (await platform.get(f"/api/usage/organizations/{ORG}/summary", key=lonely)).status_code == 403


async def test_tokens_that_are_not_access_tokens(platform: MeteringPlatform):
    good = token("ann", ORG)
    header, payload, signature = good.split(".")
    for wrong in (
        f"{header}.{payload}.",
        f"{header}.{payload}.{signature[::-1]}",
        f"{header}..{signature}",
        good + "x",
    ):
        assert (await platform.get("/api/usage/events", key=wrong)).status_code == 401
