"""Who may do what with plans and subscriptions: every route, with every kind of credential."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from billing_platform import BillingPlatform, billing_platform
from one_service import KEYS, token
from servers import PostgresServer, eventually
from trust import KeysOfAuth, answering_for_auth, key_revoked, new_token, say, token_revoked

from aragora.billing.jwt_auth import create_access_token
from billing.main import create_app
from billing.settings import Settings

ORG, OTHER = "org_ours", "org_theirs"
SUBSCRIPTION = "/api/subscription/organizations/{org_id}/subscription"
PLAN = "/api/subscription/plans/{plan}"


@pytest.fixture(scope="module")
async def billing(
    postgres_server: PostgresServer, billing_template: str, nats_server: str
) -> AsyncIterator[BillingPlatform]:
    async with billing_platform(postgres_server, billing_template, nats_server, workers=0) as running:
        for org in (ORG, OTHER):
            await running.read("PUT", SUBSCRIPTION.format(org_id=org), {"plan": "starter"})
        yield running


@pytest.fixture(scope="module")
async def keys(billing: BillingPlatform) -> AsyncIterator[KeysOfAuth]:
    async with answering_for_auth(billing.settings["NATS_URL"]) as answering:
        yield answering


@dataclass(frozen=True)
class Access:
    """What a route answers to whom. `program`: an API key of the organization that may read."""

    scope: str | None = "operator"
    service: int = 200
    stranger: int = 403
    member: int = 403
    owner: int = 403
    body: Any = None
    program: int = 403


ANYONE = Access(None, stranger=200, member=200, owner=200, program=200)
ROUTES: dict[tuple[str, str], Access] = {
    ("GET", "/api/subscription/plans"): ANYONE,
    ("GET", "/api/subscription/user/{user_id}/subscription"): Access("usage.read", 404, 200, 200, 200, program=200),
    ("GET", SUBSCRIPTION): Access(member=200, owner=200),
    ("PUT", SUBSCRIPTION): Access(body={"plan": "starter"}),
    ("POST", f"{SUBSCRIPTION}/change"): Access(owner=402, body={"plan": "professional"}),
    ("POST", f"{SUBSCRIPTION}/cancel"): Access(owner=200, body={"at_period_end": True}),
    ("POST", f"{SUBSCRIPTION}/resume"): Access(service=409, owner=200),
    ("POST", f"{SUBSCRIPTION}/trial"): Access(body={"plan": "enterprise", "days": 3}),
    ("POST", f"{SUBSCRIPTION}/comp"): Access(body={"plan": "enterprise"}),
    ("POST", f"{SUBSCRIPTION}/move"): Access(service=409),
    ("POST", PLAN): Access(service=422, body={}),
    ("GET", f"{PLAN}/versions"): Access(),
    ("POST", f"{PLAN}/retire"): Access(service=409),
}


def test_every_route_about_plans_is_in_the_table():
    app = create_app(Settings(DATABASE_URL="postgresql://nowhere"))
    documented = {
        (method.upper(), path) for path, operations in app.openapi()["paths"].items() for method in operations
    }
    assert {route for route in documented if route[1].startswith("/api/subscription/")} == ROUTES.keys()


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_access(billing: BillingPlatform, keys: KeysOfAuth, route: tuple[str, str]):
    (method, path), access = route, ROUTES[route]
    reading, writing = (keys.issue(ORG, (scope,))[0] for scope in ("usage.read", "usage.write"))
    path = path.format(org_id=ORG, user_id="ann", plan="free")
    await billing.read("PUT", SUBSCRIPTION.format(org_id=ORG), {"plan": "starter"})
    if path.endswith("/resume"):
        await billing.read("POST", SUBSCRIPTION.format(org_id=ORG) + "/cancel")
    who: list[tuple[str, str | None, int]] = [
        ("nobody", None, 401),
        ("an unknown key", "svc_" + "x" * 43, 401),
        ("a stranger", token("ann", OTHER), access.stranger),
        ("a stranger who is an owner", token("eve", OTHER, "owner"), access.stranger),
        ("a member", token("ann", ORG), access.member),
        ("an owner", token("zoe", ORG, "owner"), access.owner),
        ("a program that reads", reading, access.program),
        ("a program that writes", writing, 200 if access.scope is None else 403),
        ("a program without a known key", "ara_" + "x" * 43, 401),
        *((f"a {scope} key", key, access.service if access.scope in (scope, None) else 403)
          for scope, key in KEYS.items()),
    ]  # fmt: skip
    for name, key, status in who:
        answer = await billing.ask(method, path, access.body, key=key)
        assert answer.status_code == status, (name, answer.text)
    if access.scope == "operator":  # the last of the service keys, whose turn it was before
        operator = create_access_token("root", "root@example.com", operator=True)
        answer = await billing.ask(method, path, access.body, key=operator)
        assert answer.status_code in (access.service, 409), answer.text


async def test_nobody_reads_another_organizations_plan(billing: BillingPlatform):
    eve = token("eve", OTHER, "owner")
    found = await billing.read("GET", "/api/subscription/user/ann/subscription", key=eve)
    assert found["org_id"] == OTHER
    for path in ("/api/subscription/user/eve/subscription", "/api/subscription/user/ann/subscription"):
        assert (await billing.ask("GET", path, key=eve, org_id=ORG)).status_code == 403
    bob = token("bob", ORG)
    assert (await billing.ask("GET", "/api/subscription/user/ann/subscription", key=bob)).status_code == 403
    lonely = token("ann", None)
    assert (await billing.ask("GET", "/api/subscription/user/ann/subscription", key=lonely)).status_code == 403
    newcomer = token("ann", "org_nobody_knows")
    assert (await billing.ask("GET", "/api/subscription/user/ann/subscription", key=newcomer)).status_code == 404


async def test_a_program_reads_its_own_organizations_plan(billing: BillingPlatform, keys: KeysOfAuth):
    key, _ = keys.issue(ORG, ("usage.read",))
    path = "/api/subscription/user/whoever/subscription"
    assert (await billing.read("GET", path, key=key))["org_id"] == ORG
    assert (await billing.ask("GET", path, key=key, org_id=OTHER)).status_code == 403
    operator = create_access_token("root", "root@example.com", operator=True)
    assert (await billing.read("GET", path, key=operator, org_id=OTHER))["org_id"] == OTHER
    assert (await billing.ask("GET", path, key=operator)).status_code == 403


async def test_what_is_revoked_is_refused_and_stays_refused(billing: BillingPlatform, keys: KeysOfAuth):
    path = SUBSCRIPTION.format(org_id=ORG)
    person, payload = new_token(org_id=ORG)
    key, key_id = keys.issue(ORG, ("usage.read",))
    plans = "/api/subscription/plans"
    for credential in (person, key):
        assert (await billing.ask("GET", plans, key=credential)).status_code == 200
    await say(billing.bus, token_revoked(payload))
    await say(billing.bus, key_revoked(key_id), ORG)

    async def both_are_refused() -> bool:
        return {(await billing.ask("GET", plans, key=each)).status_code for each in (person, key)} == {401}

    await eventually(both_are_refused, 1)
    assert (await billing.ask("GET", path, key=person)).status_code == 401
