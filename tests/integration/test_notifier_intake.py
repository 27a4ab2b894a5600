"""What the notifier writes down of what it hears: once each, in one transaction, however often it comes."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from pydantic import ValidationError

from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Pool
from aragora.contracts.envelope import DomainEvent, envelope
from aragora.contracts.events import (
    PLATFORM,
    AccountLocked,
    BillingAttentionNeeded,
    LimitReached,
    MemberInvited,
    MemberRemoved,
    OrganizationDeleted,
    PasswordResetRequested,
    UserErased,
)
from aragora.contracts.ids import new_id
from notifier import handlers

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
SEALER = Sealer("of nobody " * 4, "notifier")


@pytest.fixture
async def pool(notifier_database_url: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(notifier_database_url, min_size=1, max_size=4) as found:
        yield found


def message(event: DomainEvent, org_id: str, event_id: UUID | None = None, at: datetime = NOW) -> bytes:
    return envelope(event, org_id=org_id, occurred_at=at, correlation_id="test", event_id=event_id).to_json()


def limit(percent: int = 80, meter: str = "debates", user_id: str | None = None) -> LimitReached:
    return LimitReached.model_validate({
        "meter": meter, "threshold_percent": percent, "month": "2026-06", "used": percent, "limit": 100,
        "resets_at": "2026-07-01T00:00:00Z", "user_id": user_id,
    })  # fmt: skip


async def endpoint(pool: Pool, org_id: str, endpoint_id: str, types: tuple[str, ...] = (), status: str = "enabled"):
    sealed = SEALER.seal("https://example.com/hook")
    await pool.execute(
        "INSERT INTO webhook_endpoints (org_id, endpoint_id, url, description, event_types, format, secret, status, "
        "created_at, created_by) VALUES ($1, $2, $3, '', $4, 'standard', $3, $5, now(), 'test')",
        org_id, endpoint_id, sealed, list(types), status,
    )  # fmt: skip
    await pool.execute("INSERT INTO webhook_lanes (org_id, endpoint_id) VALUES ($1, $2)", org_id, endpoint_id)


async def queued(pool: Pool, org_id: str) -> list[tuple[str, str, str]]:
    rows = await pool.fetch(
        "SELECT endpoint_id, kind, status FROM webhook_deliveries WHERE org_id = $1 ORDER BY endpoint_id, position",
        org_id,
    )
    return [tuple(row) for row in rows]


async def count(pool: Pool, table: str) -> int:
    return await pool.fetchval(f"SELECT count(*) FROM {table}")


async def test_an_event_is_an_alert_once_however_often_it_comes(pool: Pool, org: str):
    said = [message(limit(percent), org) for percent in (80, 90, 100)]
    for _ in range(3):
        await handlers.follow(pool, [*said, *reversed(said)], NOW)
    rows = await pool.fetch("SELECT alert_id, kind, severity, title, threshold_percentage FROM usage_alerts")
    assert {str(row["alert_id"]) for row in rows} == {json.loads(one)["id"] for one in said}
    assert sorted(row["threshold_percentage"] for row in rows) == [80, 90, 100]
    assert await count(pool, "unaddressed_alerts") == 3


async def test_what_was_addressed_is_not_addressed_again(pool: Pool, org: str):
    said = [message(limit(), org)]
    await handlers.follow(pool, said, NOW)
    await pool.execute("DELETE FROM unaddressed_alerts")
    await handlers.follow(pool, said, NOW)
    assert await count(pool, "unaddressed_alerts") == 0


async def test_endpoints_get_what_they_chose_and_the_operators_gets_all(pool: Pool, org: str):
    await endpoint(pool, org, "all")
    await endpoint(pool, org, "limits", ("limit.reached",))
    await endpoint(pool, org, "invoices", ("invoice.finalized",))
    await endpoint(pool, org, "resting", status="disabled")
    await endpoint(pool, "org_of_others", "all")
    await endpoint(pool, PLATFORM, "operator")
    said = [message(limit(), org), message(limit(90), org)]
    for _ in range(2):
        await handlers.follow(pool, said, NOW)
    pending, kind = "pending", "limit.reached"
    assert await queued(pool, org) == [
        *[("all", kind, pending)] * 2, *[("limits", kind, pending)] * 2, *[("resting", kind, "skipped")] * 2,
    ]  # fmt: skip
    assert await queued(pool, "org_of_others") == []
    assert await queued(pool, PLATFORM) == [("operator", kind, pending)] * 2
    lanes = await pool.fetch("SELECT endpoint_id FROM webhook_lanes WHERE next_attempt_at IS NOT NULL")
    assert {row["endpoint_id"] for row in lanes} == {"all", "limits", "operator"}


async def test_positions_are_in_the_order_of_the_events(pool: Pool, org: str):
    await endpoint(pool, org, "all")
    said = [message(limit(80, f"meter_{number:03}"), org) for number in range(100)]
    await handlers.follow(pool, said, NOW)
    bodies = await pool.fetch("SELECT body FROM webhook_deliveries ORDER BY position")
    meters = [json.loads(row["body"])["data"]["fields"]["meter"] for row in bodies]
    assert meters == [f"meter_{number:03}" for number in range(100)]


async def test_what_only_an_operator_can_settle_reaches_the_operator_alone(pool: Pool, org: str):
    await endpoint(pool, org, "all")
    await endpoint(pool, PLATFORM, "operator")
    await handlers.follow(pool, [message(BillingAttentionNeeded(kind="dispute", reference="dp_1"), org)], NOW)
    assert await queued(pool, org) == []
    assert await queued(pool, PLATFORM) == [("operator", "attention.needed", "pending")]
    assert await count(pool, "unaddressed_alerts") == 0
    assert await pool.fetchval("SELECT audience FROM usage_alerts") == "operators"


async def test_a_letter_is_mail_and_nothing_else(pool: Pool, org: str):
    await endpoint(pool, org, "all")
    await endpoint(pool, PLATFORM, "operator")
    until = NOW + timedelta(hours=1)
    reset = PasswordResetRequested(user_id="user_1", message_id="letter_1", expires_at=until)
    invited = MemberInvited(invitation_id="letter_2", role="member", invited_by="user_1", expires_at=until)
    said = [message(reset, PLATFORM), message(invited, org)]
    for _ in range(2):
        await handlers.follow(pool, said, NOW)
    rows = await pool.fetch("SELECT kind, message_id, user_id, status, mode FROM email_deliveries ORDER BY message_id")
    assert [tuple(row) for row in rows] == [
        ("letter.reset_password", "letter_1", "user_1", "pending", "mail"),
        ("letter.invitation", "letter_2", None, "pending", "mail"),
    ]
    assert [await count(pool, table) for table in ("usage_alerts", "webhook_deliveries", "unaddressed_alerts")] == [
        0, 0, 0,
    ]  # fmt: skip


async def test_one_that_is_no_event_leaves_the_batch_undone(pool: Pool, org: str):
    broken = json.loads(message(limit(), org))
    del broken["data"]["meter"]
    with pytest.raises(ValidationError):
        await handlers.follow(pool, [message(limit(90), org), json.dumps(broken).encode()], NOW)
    assert await count(pool, "usage_alerts") == 0


async def test_nothing_is_left_of_who_is_erased(pool: Pool, org: str, user: str):
    locked = AccountLocked(user_id=user, failures=5, until=NOW + timedelta(minutes=1))
    await handlers.follow(pool, [message(locked, PLATFORM), message(limit(user_id=user), org)], NOW)
    await pool.execute("INSERT INTO directories (org_id, asked_at) VALUES ($1, now())", org)
    await pool.execute("INSERT INTO contacts VALUES ($1, $2, 'owner', $3, NULL, true)", org, user, SEALER.seal("a@b.c"))
    await pool.execute("INSERT INTO alert_marks VALUES ($1, $2, 1, now())", org, user)
    erased = UserErased(user_id=user, org_ids=(org,))
    for _ in range(2):
        await handlers.follow_people(pool, [message(erased, PLATFORM)], NOW)
    assert [row["user_id"] for row in await pool.fetch("SELECT user_id FROM usage_alerts")] == [""]
    for table in ("contacts", "alert_marks", "alert_reads", "notification_preferences", "email_deliveries"):
        assert await pool.fetchval(f"SELECT count(*) FROM {table} WHERE user_id = $1", user) == 0
    assert await pool.fetchval("SELECT user_id FROM erased_people") == user


async def test_whoever_leaves_gets_nothing_more_of_the_organization(pool: Pool, org: str, user: str):
    await pool.execute("INSERT INTO directories (org_id, asked_at) VALUES ($1, $2)", org, NOW)
    await pool.execute("INSERT INTO contacts VALUES ($1, $2, 'owner', $3, NULL, true)", org, user, SEALER.seal("a@b.c"))
    await handlers.follow_people(pool, [message(MemberRemoved(user_id=user), org)], NOW)
    assert await count(pool, "contacts") == 0
    assert await pool.fetchval("SELECT changed_at >= asked_at FROM directories") is True


async def test_a_closed_organization_is_told_nothing_any_more(pool: Pool, org: str):
    await endpoint(pool, org, "all")
    await handlers.follow(pool, [message(limit(), org)], NOW)
    await handlers.follow_people(pool, [message(OrganizationDeleted(), org)], NOW)
    for table in ("webhook_endpoints", "webhook_lanes", "webhook_deliveries", "unaddressed_alerts"):
        assert await count(pool, table) == 0
    assert await pool.fetchval("SELECT closed_at FROM directories WHERE org_id = $1", org) == NOW


async def test_batches_side_by_side_keep_their_turn(pool: Pool, org: str):
    import asyncio  # noqa: PLC0415

    batches = [[message(limit(80, f"m{batch}_{one}"), org, new_id()) for one in range(20)] for batch in range(8)]
    await asyncio.gather(*(handlers.follow(pool, batch, NOW) for batch in [*batches, *batches]))
    assert await count(pool, "usage_alerts") == 160
