"""What organizations may do: metering's copy of what billing says, applied to the month as it stands.

New limits hold at once, for the month's usage so far and for what is held. One transaction does it for all the changes
that came together: it shares the log, so that no rebuild runs meanwhile, holds the organizations' months, so that no
usage is folded, and then their gates, so that nothing is reserved.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from aragora.billing.pricebook import PriceBook
from aragora.chassis import sql
from aragora.chassis.sql import Connection
from aragora.contracts.events import EntitlementsChanged, PlanPublished
from aragora.contracts.limits import Operation
from metering.estimates import estimate
from metering.limit_fold import counted_from, raise_reached
from metering.limit_fold import queries as limit_sums
from metering.limit_store import holds_as_json, limits_of
from metering.limits import Account, demands_of
from metering.projections import month_of

queries = sql.load("metering", "sql/entitlements.sql")
log_queries = sql.load("metering")

_operations = msgspec.json.Decoder(list[Operation])


async def prepare_entitlements_session(connection: Connection) -> None:
    """Bind the sums of limits to all days and to the log."""
    for statement in (
        queries.bind_days_to_fold,
        queries.bind_usage_to_fold,
        limit_sums.bind_limits,
        limit_sums.limit_sums,
        limit_sums.limit_user_sums,
        limit_sums.limit_peaks,
        limit_sums.limit_sightings,
        limit_sums.limit_totals,
    ):
        await connection.execute(statement)


async def keep_plan(connection: Connection, published: PlanPublished) -> None:
    """Remember a version of a plan, to recommend it to people at a limit."""
    plan = published.plan
    limits = msgspec.json.encode([limit.model_dump(mode="json") for limit in plan.limits]).decode()
    listing = (plan.name, plan.rank, plan.price_usd_per_month, plan.listed, limits)
    await connection.execute(queries.keep_plan, plan.plan, plan.version, *listing)


async def apply_entitlements(
    connection: Connection, changes: Sequence[tuple[str, EntitlementsChanged]], prices: PriceBook, now: datetime
) -> None:
    """Make these (organization, entitlements) the ones in force, unless newer ones are. In the caller's transaction.

    Args:
        connection: made with `prepare_entitlements_session`.
        changes: in any order; an older revision than one that is known changes nothing.
        prices: to estimate anew what reservations hold of a cost limit.
        now: in UTC; the months that limits are counted for follow from it.
    """
    latest: dict[str, EntitlementsChanged] = {}
    for org_id, change in changes:
        if org_id not in latest or latest[org_id].revision <= change.revision:
            latest[org_id] = change
    if not latest:
        return
    since = counted_from(now)
    months = [month_of(day) for day in (since, now, (now.replace(day=1) + timedelta(days=32)).date())]
    await connection.execute(log_queries.share_log)
    await connection.execute(queries.hold_months, sorted(latest), months)
    kept = await connection.fetch(
        queries.keep_entitlements,
        *zip(
            *(
                (org_id, one.revision, one.plan, one.plan_version, one.plan_name, _json(one.features), one.seats, now)
                for org_id, one in sorted(latest.items())
            ),
            strict=True,
        ),
    )
    org_ids = [row["org_id"] for row in kept]
    if not org_ids:
        return
    await connection.execute(queries.drop_limits, org_ids)
    for org_id in org_ids:
        if latest[org_id].limits:
            await connection.execute(queries.keep_limits, org_id, *_limit_columns(latest[org_id]))
    await _recount(connection, org_ids, now)
    await _hold_anew(connection, org_ids, prices, now)


def _limit_columns(change: EntitlementsChanged) -> list[tuple[str | None, ...]]:
    rows = [
        (
            limit.meter.name,
            limit.per,
            None if limit.limit is None else f"{limit.limit:f}",
            limit.meter.aggregation,
            limit.meter.quantity,
            limit.meter.event_type,
            None if limit.meter.providers is None else ",".join(limit.meter.providers),
            None if limit.overage is None else f"{limit.overage.price_usd:f}",
            None if limit.overage is None else f"{limit.overage.per:f}",
        )
        for limit in change.limits
    ]
    return list(zip(*rows, strict=True))


async def _recount(connection: Connection, org_ids: list[str], now: datetime) -> None:
    since = counted_from(now)
    await connection.execute(limit_sums.count_from, since.isoformat())
    await connection.execute(queries.recount_users, org_ids, month_of(since))
    await connection.execute(queries.recount, org_ids)
    await connection.execute(queries.forget_thresholds, org_ids, month_of(now))
    await raise_reached(connection, await connection.fetch(queries.just_reached, org_ids, month_of(now)), now)


async def _hold_anew(connection: Connection, org_ids: list[str], prices: PriceBook, now: datetime) -> None:
    """What open reservations hold of the new limits. Those that are over them now stay: they were promised."""
    rows = await connection.fetch(queries.open_reservations_of, org_ids)
    limits = await limits_of(connection, {row["org_id"] for row in rows})
    changed = []
    for row in rows:
        operations = _operations.decode(row["operations"])
        costs_usd = [estimate(prices, operation, now) for operation in operations]
        account = Account(limits[row["org_id"]])
        holds = account.hold(demands_of(operations, costs_usd, account.limits, row["user_id"]))
        changed.append((row["org_id"], row["id"], holds_as_json(holds)))
    if changed:
        await connection.execute(queries.change_holds, *zip(*changed, strict=True))
    await connection.execute(queries.drop_holds, org_ids)
    await connection.execute(queries.sum_holds, org_ids)


def _json(features: dict[str, bool]) -> str:
    return msgspec.json.encode(features).decode()
