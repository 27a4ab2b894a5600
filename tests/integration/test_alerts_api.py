"""Alerts over HTTP: who sees what, what is read, and what nobody else learns."""

import json
import os
import random
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec
import pytest
from notifier_world import NotifierWorld, notifier_world
from one_service import KEYS, token
from servers import PostgresServer
from shown_alerts import show

from aragora.contracts.alerts import UNREAD_ALERTS
from aragora.contracts.contacts import MemberRole
from aragora.contracts.ids import new_id
from notifier.domain import Choice, chosen, sees
from notifier.kinds import CHOOSABLE, KINDS

ALERTS = "/api/subscription/alerts"
ROLES: tuple[MemberRole, ...] = ("owner", "admin", "member")


@pytest.fixture(scope="module")
async def world(
    postgres_server: PostgresServer, notifier_template: str, nats_server: str
) -> AsyncIterator[NotifierWorld]:
    async with notifier_world(postgres_server, notifier_template, nats_server, works=False) as running:
        await running.app.state.trust.ready()
        yield running


@pytest.fixture
def people(world: NotifierWorld, org: str) -> dict[MemberRole, str]:
    """An owner, an admin and a member, whom nobody else knows."""
    found: dict[MemberRole, str] = {role: f"{role}_{new_id().hex}" for role in ROLES}
    for role, user_id in found.items():
        world.book.add(org, user_id, role)
    return found


def tokens(people: dict[MemberRole, str], org: str) -> dict[MemberRole, str]:
    return {role: token(user_id, org, role) for role, user_id in people.items()}


async def unread(world: NotifierWorld, org: str, user: str) -> int:
    """What the notifier says on the bus."""
    question = msgspec.json.encode({"org_id": org, "user_id": user})
    return json.loads((await world.bus.request(UNREAD_ALERTS, question, timeout=3)).data)["unread"]


async def test_an_alert_says_what_there_is_to_know(world: NotifierWorld, org: str, people: dict[MemberRole, str]):
    said = {
        "title": "80 % of the debates are used", "message": "8 of 10.", "facts": (("Used", "8"), ("Limit", "10")),
        "place": "/billing", "threshold_percentage": 80, "provider": "anthropic", "meter": "debates",
        "billing_period": "2026-05",
    }  # fmt: skip
    (alert_id,) = await show(world, org, "limit.reached", **said)
    key = token(people["member"], org)
    found = await world.read("GET", f"{ALERTS}/{people['member']}", key=key)
    (alert,) = found.pop("alerts")
    assert found == {"total": 1, "unread_count": 1, "next_cursor": None}
    assert alert.pop("position") > 0
    assert alert.pop("created_at")
    assert alert == said | {
        "id": str(alert_id), "type": "limit.reached", "severity": "warning", "is_read": False, "read_at": None,
        "org_id": org, "facts": [{"label": "Used", "value": "8"}, {"label": "Limit", "value": "10"}],
    }  # fmt: skip


async def test_pages_and_filters(world: NotifierWorld, org: str, people: dict[MemberRole, str]):
    first = await show(world, org, *["limit.reached"] * 5)
    second = await show(world, org, *["payment.failed"] * 2, severity="critical")
    everything = [str(one) for one in (*first, *second)][::-1]
    key, path = token(people["owner"], org, "owner"), f"{ALERTS}/{people['owner']}"
    got, cursor = list[str](), None
    for _ in range(3):
        page = await world.read("GET", path, key=key, limit=3, cursor=cursor)
        assert (page["total"], page["unread_count"]) == (7, 7)
        got += [each["id"] for each in page["alerts"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert got == everything
    await world.read("POST", f"{ALERTS}/{second[1]}/mark-read", key=key)
    for query, count in (
        ({"kind": "payment.failed"}, 2), ({"severity": "critical"}, 2), ({"severity": "info"}, 0),
        ({"unread_only": True}, 6), ({"unread_only": True, "severity": "critical"}, 1),
    ):  # fmt: skip
        for limit in (1, 20):
            page = await world.read("GET", path, key=key, limit=limit, **query)
            assert (page["total"], page["unread_count"], len(page["alerts"])) == (count, 6, min(count, limit)), query


async def test_who_sees_what_is_what_the_rules_say(world: NotifierWorld, org: str, people: dict[MemberRole, str]):
    seed = int(os.environ.get("ARAGORA_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed {seed}")
    rng = random.Random(seed)
    everybody = list(people.values())
    kinds = [kind for kind in KINDS.values() if kind.in_app]
    told = list[tuple[str, str, str | None]]()
    for kind in rng.choices(kinds, k=60):
        concerned = rng.choice(everybody) if kind.audience == "person" else rng.choice([None, *everybody])
        (alert_id,) = await show(world, org, kind.name, user_id=concerned)
        told.append((str(alert_id), kind.name, concerned))
    await show(world, f"another_{org}", "limit.reached", "payment.failed")
    choices = [
        Choice(owner, kind, None, rng.choice([None, True, False]))
        for owner in ("", *everybody)
        for kind in rng.sample(CHOOSABLE, k=12)
    ]
    await world.pool.executemany(
        "INSERT INTO notification_preferences (org_id, user_id, kind, in_app, changed_at) VALUES ($1, $2, $3, $4, $5)",
        [(org, each.user_id, each.kind, each.in_app, world.clock()) for each in choices],
    )
    for role, user_id in people.items():
        expected = [
            alert_id
            for alert_id, name, concerned in told
            if sees(KINDS[name], role, user_id, concerned) and chosen(KINDS[name], user_id, choices)[1]
        ]
        found = await world.read("GET", f"{ALERTS}/{user_id}", key=token(user_id, org, role), limit=100)
        assert [each["id"] for each in found["alerts"]] == expected[::-1]
        assert found["total"] == found["unread_count"] == len(expected)


async def test_what_others_see_of_a_member(world: NotifierWorld, org: str, people: dict[MemberRole, str]):
    member = people["member"]
    own, of_admins = await show(world, org, "limit.reached", "invoice.finalized", user_id=member)
    (locked,) = await show(world, org, "account.locked", user_id=member)
    keys = tokens(people, org)

    async def seen(key: str, **query: str) -> list[str]:
        found = await world.read("GET", f"{ALERTS}/{member}", key=key, **query)
        return [each["id"] for each in found["alerts"]]

    assert await seen(keys["member"]) == [str(locked), str(own)]
    assert await seen(keys["owner"]) == await seen(keys["admin"]) == [str(own)]
    assert await seen(KEYS["usage.read"], org_id=org) == [str(locked), str(own)]
    of_owner = await world.read("GET", f"{ALERTS}/{people['owner']}", key=keys["admin"])
    assert [each["id"] for each in of_owner["alerts"]] == [str(of_admins), str(own)]


async def test_who_may_not_ask(world: NotifierWorld, org: str, people: dict[MemberRole, str], user: str):
    path, keys = f"{ALERTS}/{people['member']}", tokens(people, org)
    for key, query, status in (
        (None, {}, 401),
        (token(user, f"another_{org}", "owner"), {"org_id": org}, 403),
        (token(user, f"another_{org}", "owner"), {}, 404),
        (token(user, None), {}, 403),
        (token(user, org), {}, 403),
        (KEYS["usage.write"], {"org_id": org}, 403),
        (KEYS["usage.read"], {}, 422),
        (keys["member"], {"severity": "fatal"}, 422),
        (keys["member"], {"cursor": "x"}, 422),
        (keys["member"], {"limit": 101}, 422),
    ):
        assert (await world.ask("GET", path, key=key, **query)).status_code == status, query
    assert (await world.ask("GET", f"{ALERTS}/{user}", key=keys["owner"])).status_code == 404


async def test_auth_is_away(world: NotifierWorld, org: str, people: dict[MemberRole, str]):
    world.book.is_away = True
    try:
        keys = tokens(people, org)
        assert (await world.ask("GET", f"{ALERTS}/{people['member']}", key=keys["member"])).status_code == 200
        answer = await world.client.get(
            f"{ALERTS}/{people['member']}", headers={"Authorization": f"Bearer {keys['owner']}"}
        )
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    finally:
        world.book.is_away = False


async def test_reading_is_each_ones_own_and_once(world: NotifierWorld, org: str, people: dict[MemberRole, str]):
    (alert_id,) = await show(world, org, "limit.reached")
    keys = tokens(people, org)
    path = f"{ALERTS}/{alert_id}/mark-read"
    first = await world.read("POST", path, key=keys["member"])
    assert first["unread_count"] == 0
    assert await world.read("POST", path, key=keys["member"]) == first
    assert (await world.read("GET", f"{ALERTS}/{people['member']}", key=keys["member"]))["alerts"][0]["is_read"]
    assert (await world.read("GET", f"{ALERTS}/{people['owner']}", key=keys["owner"]))["unread_count"] == 1
    services = await world.read("POST", path, org_id=org, user_id=people["owner"])
    assert services["unread_count"] == 0


async def test_marking_what_is_not_ones_own(world: NotifierWorld, org: str, people: dict[MemberRole, str], user: str):
    (of_admins,) = await show(world, org, "payment.failed")
    (locked,) = await show(world, org, "account.locked", user_id=people["owner"])
    keys = tokens(people, org)
    stranger = token(user, f"another_{org}", "owner")
    for key, alert_id in (
        (stranger, of_admins), (keys["member"], of_admins), (keys["member"], locked), (keys["admin"], locked),
        (keys["owner"], UUID(int=7)),
    ):  # fmt: skip
        assert (await world.ask("POST", f"{ALERTS}/{alert_id}/mark-read", key=key)).status_code == 404
    assert (await world.ask("POST", f"{ALERTS}/not-an-id/mark-read", key=keys["owner"])).status_code == 422
    path = f"{ALERTS}/{of_admins}/mark-read"
    others = await world.ask("POST", path, key=keys["admin"], user_id=people["owner"])
    assert others.status_code == 403
    assert (await world.ask("POST", path, key=stranger, org_id=org)).status_code == 403
    assert (await world.ask("POST", path, org_id=org)).status_code == 422
    assert (await world.ask("POST", path, key=KEYS["usage.read"], org_id=org)).status_code == 403
    all_of = f"{ALERTS}/{people['member']}/mark-all-read"
    assert (await world.ask("POST", all_of, key=keys["owner"])).status_code == 403
    assert await world.rows("SELECT alert_id FROM alert_reads WHERE org_id IN ($1, 'platform')", org) == []


async def test_everything_is_marked_at_once_until_now(world: NotifierWorld, org: str, people: dict[MemberRole, str]):
    member = people["member"]
    key, path = token(member, org), f"{ALERTS}/{member}"
    (before,) = await show(world, org, "limit.reached")
    read_at = (await world.read("POST", f"{ALERTS}/{before}/mark-read", key=key))["read_at"]
    await show(world, org, "limit.reached", "limit.reached", "payment.failed")
    await show(world, org, "account.locked", user_id=member)
    assert await unread(world, org, member) == 3
    assert await world.read("POST", f"{path}/mark-all-read", key=key) == {"marked": 3, "unread_count": 0}
    assert await world.read("POST", f"{path}/mark-all-read", key=key) == {"marked": 0, "unread_count": 0}
    assert await unread(world, org, member) == 0
    found = (await world.read("GET", path, key=key))["alerts"]
    assert all(each["is_read"] and each["read_at"] for each in found)
    assert found[-1]["read_at"] == read_at
    await show(world, org, "limit.reached")
    assert await unread(world, org, member) == 1
    owners = await world.read("POST", f"{ALERTS}/{people['owner']}/mark-all-read", org_id=org)
    assert owners == {"marked": 5, "unread_count": 0}


async def test_the_bus_is_told_how_many_are_unread(world: NotifierWorld, org: str, people: dict[MemberRole, str]):
    await show(world, org, "limit.reached", "payment.failed")
    asked = world.book.asked
    assert await unread(world, org, people["owner"]) == 1  # nobody has said yet that they are an owner
    assert world.book.asked == asked
    await world.read("GET", f"{ALERTS}/{people['owner']}", key=KEYS["usage.read"], org_id=org)
    assert await unread(world, org, people["owner"]) == 2
    assert await unread(world, org, people["member"]) == 1
    for nonsense in (b"", b"{}", b'{"org_id": 7, "user_id": "a"}', b'{"org_id": "a\\u0000", "user_id": "a"}'):
        assert (await world.bus.request(UNREAD_ALERTS, nonsense, timeout=3)).data == b""


async def test_what_needs_attention_is_for_operators(world: NotifierWorld, org: str, people: dict[MemberRole, str]):
    ids = await show(world, org, "attention.needed", "attention.needed", severity="critical")
    page = await world.read("GET", "/api/notifications/attention", limit=1)
    assert [each["id"] for each in page["alerts"]] == [str(ids[1])]
    page = await world.read("GET", "/api/notifications/attention", limit=1, cursor=page["next_cursor"])
    assert page["alerts"][0]["id"] == str(ids[0])
    assert page["alerts"][0]["org_id"] == "platform"
    key = token(people["owner"], org, "owner")
    assert (await world.ask("GET", "/api/notifications/attention", key=key)).status_code == 403
    assert (await world.read("GET", f"{ALERTS}/{people['owner']}", key=key))["total"] == 0


async def test_the_kinds_are_known_to_everybody(world: NotifierWorld, org: str, user: str):
    found = await world.read("GET", "/api/notifications/kinds", key=token(user, org))
    assert [each["type"] for each in found] == list(KINDS)
    failed = next(each for each in found if each["type"] == "payment.failed")
    assert (failed["essential"], failed["choosable"], failed["for_endpoints"]) == (True, True, True)
    assert (await world.ask("GET", "/api/notifications/kinds", key=None)).status_code == 401
