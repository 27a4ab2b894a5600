"""The recording transaction on a real Postgres: counted once, priced, folded; every bad event kept with its reason."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest
from usage import NOON, cloudevent, message, recorder

from aragora.chassis import store
from metering import refold
from metering.log_months import open_due_month


@pytest.fixture
async def database(metering_database_url):
    connection = await asyncpg.connect(metering_database_url)
    yield connection
    await connection.close()


async def equal_to_log(url):
    verdict = await refold.verify(url, connections=2, progress=lambda *_: None, now=NOON)
    assert verdict.equal, verdict.differences
    return verdict


async def test_an_event_is_priced_and_folded(metering_database_url, database):
    async with recorder(metering_database_url) as rec:
        assert await rec.record([("usage.recorded.0", 1, message(cloudevent(event_type="debate")))], NOON) == 1
    row = await database.fetchrow("SELECT * FROM usage_events")
    assert (row["cost_usd"], row["price_source"]) == (Decimal("0.0075"), "aragora")
    month = await database.fetchrow("SELECT * FROM usage_monthly")
    assert dict(month) == {
        "org_id": "org_acme", "month": "2026-06", "debates": 1, "api_calls": 1, "total_tokens": 1500,
        "total_cost": Decimal("0.0075"), "events": 1, "unpriced_events": 0,
    }  # fmt: skip
    await equal_to_log(metering_database_url)


async def test_a_redelivered_batch_changes_nothing(metering_database_url, database):
    bodies = [("usage.recorded.0", n, message(*(cloudevent() for _ in range(50)))) for n in range(4)]
    async with recorder(metering_database_url) as rec:
        assert await rec.record(bodies, NOON) == 200
        before = await database.fetch("SELECT * FROM usage_daily ORDER BY 1, 2, 3, 4, 5, 6")
        assert await rec.record(bodies[::-1], NOON) == 0
    assert await database.fetch("SELECT * FROM usage_daily ORDER BY 1, 2, 3, 4, 5, 6") == before


async def test_a_retry_with_another_timestamp_counts_once_also_over_the_month_boundary(metering_database_url, database):
    last_of_june, first_of_july = datetime(2026, 6, 30, 23, 59, tzinfo=UTC), datetime(2026, 7, 1, 0, 1, tzinfo=UTC)
    async with recorder(metering_database_url, last_of_june) as rec:
        one = cloudevent(id="e1", occurred_at=last_of_june.isoformat())
        assert await rec.record([("s", 1, message(one))], last_of_june) == 1
        await open_due_month(rec._pool, first_of_july)
        again = cloudevent(id="e1", occurred_at=first_of_july.isoformat())
        new = cloudevent(id="e2", occurred_at=first_of_july.isoformat())
        assert await rec.record([("s", 2, message(again, new))], first_of_july) == 1
    tables = await database.fetch("SELECT tableoid::regclass::text AS name, id FROM usage_events ORDER BY id")
    assert [tuple(row) for row in tables] == [("usage_events_2026_06", "e1"), ("usage_events_2026_07", "e2")]
    months = await database.fetch("SELECT month, events FROM usage_monthly ORDER BY month")
    assert [tuple(row) for row in months] == [("2026-06", 1), ("2026-07", 1)]
    await equal_to_log(metering_database_url)


async def test_late_usage_folds_into_its_own_month(metering_database_url, database):
    async with recorder(metering_database_url) as rec:
        await rec.record([("s", 1, message(cloudevent(occurred_at="2025-12-31T23:59:59.999+00:00")))], NOON)
        await rec.record([("s", 1, message(cloudevent(occurred_at="2026-01-01T00:30:00+01:00")))], NOON)
    assert await database.fetchval("SELECT month FROM usage_monthly WHERE events = 2") == "2025-12"


async def test_the_same_id_counts_once_per_organization(metering_database_url):
    async with recorder(metering_database_url) as rec:
        both = message(cloudevent(id="x", org_id="org_a"), cloudevent(id="x", org_id="org_b"))
        assert await rec.record([("s", 1, both)], NOON) == 2


async def test_only_the_bad_event_of_a_batch_is_lost_to_the_dead_letters(metering_database_url, database):
    bad = [
        cloudevent(tokens_in=-1), cloudevent(tokens_in=2**53 + 1), cloudevent(tokens_in=1.5), cloudevent(id=""),
        cloudevent(id="x" * 129), cloudevent(org_id="a.b"), cloudevent(cost_usd="NaN"), cloudevent(cost_usd="-1"),
        cloudevent(occurred_at=(NOON + timedelta(hours=2)).isoformat()), cloudevent(occurred_at="2026-06-15T12:00:00"),
        cloudevent(occurred_at="yesterday"), cloudevent(model="nul\x00"), cloudevent(metadata=[1]),
        cloudevent(event_type=...), cloudevent(id="twin", tokens_in=2),
    ]  # fmt: skip
    good = [cloudevent(id="twin", tokens_in=1), *(cloudevent() for _ in range(3)), cloudevent(unheard_of=1)]
    bodies = [
        ("usage.recorded.0", 1, message(*good, *bad)), ("usage.recorded.0", 2, b"\xff\xfe"),
        ("usage.recorded.0", 3, b"{"), ("usage.recorded.0", 4, b"[" * 100_000), ("usage.recorded.0", 5, b"[]"),
    ]  # fmt: skip
    async with recorder(metering_database_url) as rec:
        for _ in range(2):  # a redelivery adds no letter
            await rec.record(bodies, NOON)
    assert await database.fetchval("SELECT count(*) FROM usage_events") == len(good)
    letters = await database.fetch("SELECT field, reason FROM dead_letters")
    assert len(letters) == len(bad) + 3
    assert {row["field"] for row in letters} == {
        "tokens_in", "id", "org_id", "cost_usd", "occurred_at", "model", "metadata", "event_type", None
    }  # fmt: skip
    await equal_to_log(metering_database_url)


async def test_unpriced_usage_is_loud_once(metering_database_url, database):
    async with recorder(metering_database_url) as rec:
        for _ in range(3):
            odd = [cloudevent(provider="acme-llm", model="m1"), cloudevent(provider="acme-llm", model="m2")]
            await rec.record([("s", 1, message(*odd, cloudevent()))], NOON)
    unpriced = await database.fetch("SELECT cost_usd, unpriced_reason FROM usage_events WHERE provider = 'acme-llm'")
    assert len(unpriced) == 6
    assert all(row["cost_usd"] is None and row["unpriced_reason"] for row in unpriced)
    events = await database.fetch("SELECT type, stream FROM events ORDER BY position")
    assert [row["type"] for row in events] == ["aragora.metering.UnpricedUsageSeen.v1"] * 2
    _, (seen,) = await store.load(database, events[0]["stream"], org_id="org_acme")
    assert seen.model_dump(include={"month", "provider", "model"}) == {
        "month": "2026-06", "provider": "acme-llm", "model": "m1"
    }  # fmt: skip
    assert await database.fetchval("SELECT unpriced_events FROM usage_monthly") == 6


async def test_sums_do_not_overflow(metering_database_url, database):
    async with recorder(metering_database_url) as rec:
        huge = [cloudevent(tokens_in=2**53, tokens_out=2**53, requests=2**53) for _ in range(1100)]
        assert await rec.record([("s", 1, message(*huge))], NOON) == 1100
    month = await database.fetchrow("SELECT total_tokens, total_cost FROM usage_monthly")
    assert month["total_tokens"] == 1100 * 2**54
    assert month["total_cost"] == 1100 * 2**53 * Decimal("0.0000125")
    await equal_to_log(metering_database_url)


async def test_any_duplication_and_order_and_concurrency_gives_the_same_totals(metering_database_url, database):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rnd = random.Random(seed)
    events = [
        cloudevent(
            org_id=f"org_{rnd.randrange(5)}", user_id=f"u{rnd.randrange(3)}", tokens_in=rnd.randrange(10**6),
            occurred_at=(NOON - timedelta(hours=rnd.randrange(2000))).isoformat(),
            model=rnd.choice(["gpt-4o", "gpt-4o-mini"]),
        )
        for _ in range(1500)
    ]  # fmt: skip
    sent = events + rnd.choices(events, k=500)
    rnd.shuffle(sent)
    bodies = [("s", n, message(*sent[n : n + 40])) for n in range(0, len(sent), 40)]

    async with recorder(metering_database_url) as rec:

        async def work(share):
            while share:
                await rec.record([share.pop() for _ in range(min(len(share), rnd.randint(1, 5)))], NOON)

        await asyncio.gather(*(work(bodies) for _ in range(4)))
    price = {"gpt-4o": Decimal("0.0000025"), "gpt-4o-mini": Decimal("0.00000015")}
    out = {"gpt-4o": Decimal("0.005"), "gpt-4o-mini": Decimal("0.0003")}
    cost = sum(price[e["data"]["model"]] * e["data"]["tokens_in"] + out[e["data"]["model"]] for e in events)
    totals = await database.fetchrow("SELECT sum(events) AS events, sum(total_cost) AS cost FROM usage_monthly")
    assert (totals["events"], totals["cost"]) == (1500, cost)
    assert (await equal_to_log(metering_database_url)).events == 1500


async def test_rebuild_mends_what_verify_finds(metering_database_url, database):
    async with recorder(metering_database_url) as rec:
        await rec.record([("s", 1, message(*(cloudevent(user_id=f"u{n}") for n in range(20))))], NOON)
    await database.execute("UPDATE usage_daily SET cost_usd = cost_usd + 0.0000000001 WHERE user_id = 'u7'")
    await database.execute("DELETE FROM usage_daily WHERE user_id = 'u8'")
    await database.execute("UPDATE usage_monthly SET org_id = 'org_other'")
    progress = []
    verdict = await refold.verify(
        metering_database_url, connections=2, progress=lambda *p: progress.append(p), now=NOON
    )
    assert (verdict.different_rows, progress[-1][0]) == (4, progress[-1][1])
    assert {one.projection for one in verdict.differences} == {"usage_daily", "usage_monthly"}
    assert (
        await refold.rebuild(metering_database_url, connections=2, progress=lambda *_: None, now=NOON)
    ).different_rows == 4
    await equal_to_log(metering_database_url)


async def test_the_log_refuses_every_change(metering_database_url, database):
    async with recorder(metering_database_url) as rec:
        await rec.record([("s", 1, message(cloudevent()))], NOON)
    for table in ("usage_events", "usage_events_2026_06"):
        for change in (f"UPDATE {table} SET cost_usd = 0", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
                await database.execute(change)
