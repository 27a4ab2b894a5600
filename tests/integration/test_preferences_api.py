"""Preferences over HTTP: a person's, the organization's, and what counts."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from notifier_world import NotifierWorld, notifier_world
from one_service import KEYS, token
from servers import PostgresServer
from shown_alerts import show

from notifier.kinds import CHOOSABLE, KINDS

OWN = "/api/notifications/preferences"
NOTHING = {"email": None, "in_app": None}


@pytest.fixture(scope="module")
async def world(
    postgres_server: PostgresServer, notifier_template: str, nats_server: str
) -> AsyncIterator[NotifierWorld]:
    async with notifier_world(postgres_server, notifier_template, nats_server, works=False) as running:
        await running.app.state.trust.ready()
        yield running


def of_organization(org: str) -> str:
    return f"/api/notifications/organizations/{org}/preferences"


def of_kind(found: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(each for each in found["kinds"] if each["type"] == kind)


async def test_nothing_is_chosen_at_first(world: NotifierWorld, org: str, user: str):
    found = await world.read("GET", OWN, key=token(user, org))
    assert (found["org_id"], found["user_id"]) == (org, user)
    assert [each["type"] for each in found["kinds"]] == list(CHOOSABLE)
    for each in found["kinds"]:
        assert each["choice"] == each["organization"] == NOTHING
        assert each["in_force"] == {"email": KINDS[each["type"]].email, "in_app": True}


async def test_a_persons_choice_goes_before_the_organizations(world: NotifierWorld, org: str, user: str):
    key, owner, kind = token(user, org), token(f"o_{user}", org, "owner"), "limit.reached"
    body = {"kinds": {kind: {"email": "off", "in_app": False}, "usage.anomaly": {"email": "digest"}}}
    found = of_kind(await world.read("PUT", of_organization(org), body, key=owner), kind)
    assert found["choice"] == found["in_force"] == {"email": "off", "in_app": False}
    own = await world.read("PUT", OWN, {"kinds": {kind: {"email": "digest"}}}, key=key)
    assert of_kind(own, kind)["choice"] == {"email": "digest", "in_app": None}
    assert of_kind(own, kind)["organization"] == {"email": "off", "in_app": False}
    assert of_kind(own, kind)["in_force"] == {"email": "digest", "in_app": False}
    assert of_kind(own, "usage.anomaly")["in_force"]["email"] == "digest"
    own = await world.read("PUT", OWN, {"kinds": {"usage.anomaly": {"in_app": True}}}, key=key)
    assert of_kind(own, kind)["choice"]["email"] == "digest"
    own = await world.read("PUT", OWN, {"kinds": {kind: NOTHING}}, key=key)
    assert of_kind(own, kind)["in_force"] == {"email": "off", "in_app": False}
    assert await world.read("GET", OWN, key=key) == own
    another = await world.read("GET", OWN, key=token(user, f"another_{org}"))
    assert of_kind(another, kind)["in_force"] == {"email": "at_once", "in_app": True}


async def test_what_one_does_not_want_to_see_is_not_shown(world: NotifierWorld, org: str, user: str):
    await show(world, org, "limit.reached")
    key, alerts = token(user, org), f"/api/subscription/alerts/{user}"
    assert (await world.read("GET", alerts, key=key))["unread_count"] == 1
    await world.read("PUT", OWN, {"kinds": {"limit.reached": {"in_app": False}}}, key=key)
    found = await world.read("GET", alerts, key=key)
    assert (found["alerts"], found["total"], found["unread_count"]) == ([], 0, 0)
    await world.read("PUT", OWN, {"kinds": {"limit.reached": {"in_app": None}}}, key=key)
    assert (await world.read("GET", alerts, key=key))["unread_count"] == 1


@pytest.mark.parametrize(
    ("kinds", "field"),
    [
        ({"payment.failed": {"email": "digest"}}, "kinds.payment.failed"),
        ({"payment.failed": {"email": "off"}}, "kinds.payment.failed"),
        ({"payment.failed": {"in_app": False}}, "kinds.payment.failed"),
        ({"account.locked": {"email": "at_once"}}, "kinds.account.locked"),
        ({"no.such": {}}, "kinds.no.such"), ({"limit.reached": {"email": "weekly"}}, "kinds.limit.reached.email"),
        ({"limit.reached": {"in_app": "no"}}, "kinds.limit.reached.in_app"),
        ({"limit.reached": {"sms": True}}, "kinds.limit.reached.sms"), ({"limit.reached": None}, "kinds.limit.reached"),
        ([], "kinds"),
    ],
    ids=str,
)  # fmt: skip
async def test_what_cannot_be_chosen(world: NotifierWorld, org: str, user: str, kinds: Any, field: str):
    for path in (OWN, of_organization(org)):
        answer = await world.ask("PUT", path, {"kinds": kinds}, key=token(user, org, "owner"))
        assert answer.status_code == 422
        assert [each["field"] for each in answer.json()["errors"]] == [field]
    allowed = {"kinds": {"payment.failed": {"email": "at_once", "in_app": True}}}
    assert (await world.ask("PUT", OWN, allowed, key=token(user, org))).status_code == 200


async def test_whose_they_are(world: NotifierWorld, org: str, user: str):
    body: dict[str, Any] = {"kinds": {}}
    path = of_organization(org)
    for method, given in (("GET", None), ("PUT", body)):
        for key, status in (
            (None, 401), (KEYS["usage.read"], 403), (KEYS["operator"], 403), (token(user, None), 403),
            (token(user, org), 200),
        ):  # fmt: skip
            assert (await world.ask(method, OWN, given, key=key)).status_code == status
        for key, status in (
            (None, 401), (KEYS["usage.read"], 403), (token(user, org), 403), (KEYS["operator"], 200),
            (token(user, f"another_{org}", "owner"), 403), (token(user, org, "admin"), 200),
        ):  # fmt: skip
            assert (await world.ask(method, path, given, key=key)).status_code == status
