"""What the limit desk reads and writes: limits, what is used and held, reservations."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec

from aragora.billing.rating import EXACT, trimmed
from aragora.chassis import sql, store
from aragora.chassis.sql import Connection
from aragora.contracts.events import ReservationExpired
from aragora.contracts.plans import Overage
from metering.limits import ZERO, Account, Key, Limit
from metering.projections import month_of
from metering.reservations import Ledger, Plan, Reservation

queries = sql.load("metering", "sql/reservations.sql")

HoldKey = tuple[str, str, str, str]
"""Organization, month, person ('' for everybody), meter."""

EXPIRE_AT_ONCE = 1_000


class LimitCache:
    """The limits of organizations, by the revision of their entitlements: a revision never changes its meaning."""

    MAX_ORGANIZATIONS = 50_000

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Sequence[Limit]]] = {}

    async def limits_of(self, connection: Connection, revisions: dict[str, int]) -> dict[str, Sequence[Limit]]:
        """The limits of organizations, whose revisions the caller has just read."""
        known = {org: self._known.get(org, (0, ())) for org in revisions}
        found = {org: limits for org, (revision, limits) in known.items() if revision == revisions[org]}
        missing = [org for org in revisions if org not in found]
        if missing:
            found |= await limits_of(connection, missing)
            if len(self._known) + len(missing) > self.MAX_ORGANIZATIONS:
                self._known.clear()
            self._known |= {org: (revisions[org], found[org]) for org in missing}
        return found


async def limits_of(connection: Connection, org_ids: Collection[str]) -> dict[str, Sequence[Limit]]:
    """The limits of each organization, in the order of its plan."""
    found: dict[str, list[Limit]] = {org_id: [] for org_id in org_ids}
    for row in await connection.fetch(queries.limits_of, list(org_ids)):
        found[row["org_id"]].append(_limit(row))
    return dict(found)


def _limit(row: asyncpg.Record) -> Limit:
    return Limit(
        meter=row["meter"],
        per=row["per"],
        amount=None if row["amount"] is None else trimmed(row["amount"]),
        aggregation=row["aggregation"],
        quantity=row["quantity"],
        event_type=row["event_type"],
        providers=None if row["providers"] is None else tuple(row["providers"]),
        overage=None
        if row["overage_price_usd"] is None
        else Overage(price_usd=trimmed(row["overage_price_usd"]), per=trimmed(row["overage_per"])),
    )


async def read(
    connection: Connection,
    cache: LimitCache,
    org_ids: Collection[str],
    users: Collection[str],
    *,
    ids: Sequence[tuple[str, str]],
    keys: Sequence[tuple[str, str]],
    now: datetime,
    gated: bool,
) -> tuple[dict[str, Ledger], list[str]]:
    """A ledger for each organization that is known, and the organizations with reservations that are past their time.

    Args:
        connection: in a transaction if `gated`.
        cache: of limits.
        org_ids: the organizations.
        users: whose own limits are asked for; '' among them.
        ids: reservations (organization, id) that are asked for.
        keys: idempotency keys (organization, key) that are asked for.
        now: in UTC; what is used and held is of its month.
        gated: hold the organizations' gates until the transaction ends, and only then look at anything.
    """
    month, orgs = month_of(now), sorted(org_ids)
    gates = await connection.fetch(queries.hold_gates if gated else queries.look_at_gates, orgs)
    limits = await cache.limits_of(connection, {row["org_id"]: row["revision"] for row in gates})
    ledgers = {
        row["org_id"]: Ledger(
            org_id=row["org_id"],
            plan=Plan(row["plan"], row["plan_version"], row["plan_name"]),
            account=Account(limits[row["org_id"]]),
            month=month,
        )
        for row in gates
    }
    due = []
    for org_id, meter, user_id, used, held in await connection.fetch(queries.counters, orgs, month, list(users), now):
        if meter is None:
            due.append(org_id)
        elif org_id in ledgers:
            account = ledgers[org_id].account
            if used is not None:
                account.used[meter, user_id] = Decimal(used)
            else:
                account.held[meter, user_id] = Decimal(held)
    await _read_users(connection, ledgers, month, users)
    for query, asked in ((queries.reservations_by_id, ids), (queries.reservations_by_key, keys)):
        if asked:
            for row in await connection.fetch(query, *zip(*asked, strict=True)):
                if row["org_id"] in ledgers:
                    ledgers[row["org_id"]].know(_reservation(row))
    return ledgers, due


async def _read_users(connection: Connection, ledgers: dict[str, Ledger], month: str, users: Collection[str]) -> None:
    meters = {
        limit.meter
        for ledger in ledgers.values()
        for limit in ledger.account.limits
        if limit.aggregation == "unique_users"
    }
    if not meters:
        return
    found = await connection.fetch(queries.counted_users, list(ledgers), month, list(meters), list(users))
    for org_id, meter, user_id, held in found:
        account = ledgers[org_id].account
        if held is None:
            account.counted.setdefault(meter, set()).add(user_id)
        else:
            account.waiting.setdefault(meter, set()).add(user_id)
            account.held[meter, user_id] = Decimal(held)


def _reservation(row: asyncpg.Record) -> Reservation:
    return Reservation(
        id=row["id"],
        state=row["state"],
        user_id=row["user_id"],
        month=row["month"],
        holds=holds_in(row["holds"]),
        expires_at=row["expires_at"],
        idempotency_key=row["idempotency_key"],
        digest=row["digest"],
    )


def holds_in(text: str) -> dict[Key, Decimal]:
    """The holds of a stored reservation."""
    return {(one["meter"], one["user_id"]): Decimal(one["amount"]) for one in msgspec.json.decode(text)}


def holds_as_json(holds: dict[Key, Decimal]) -> str:
    """The holds of a reservation, to be stored: amounts as strings, so that none loses a digit."""
    stored = [{"meter": meter, "user_id": user, "amount": f"{amount:f}"} for (meter, user), amount in holds.items()]
    return msgspec.json.encode(stored).decode()


async def write(connection: Connection, ledgers: Iterable[Ledger], now: datetime) -> None:
    """Write what was decided, while the gates are still held."""
    raised: dict[HoldKey, Decimal] = {}
    lowered: dict[HoldKey, Decimal] = {}
    opened: list[tuple[Any, ...]] = []
    released: list[tuple[str, str]] = []
    extended: list[tuple[str, str, datetime]] = []
    month = ""
    for ledger in ledgers:
        month = ledger.month
        for one in ledger.opened:
            opened.append((
                ledger.org_id, one.id, one.idempotency_key, one.digest, one.user_id, one.operations.decode(),
                holds_as_json(one.holds), one.expires_at,
            ))  # fmt: skip
            for (meter, user), amount in one.holds.items():
                _add(raised, (ledger.org_id, one.month, user, meter), amount)
        for one in ledger.released:
            released.append((ledger.org_id, one.id))
            for (meter, user), amount in one.holds.items():
                _add(lowered, (ledger.org_id, one.month, user, meter), amount)
        extended += [(ledger.org_id, one.id, one.expires_at) for one in ledger.extended]
    if opened:
        await connection.execute(queries.open_reservations, month, now, *zip(*opened, strict=True))
    for query, changes in ((queries.raise_holds, raised), (queries.lower_holds, lowered)):
        if changes:
            keyed = [(*key, f"{amount:f}") for key, amount in changes.items()]
            await connection.execute(query, *zip(*keyed, strict=True))
    if released:
        await connection.execute(queries.release_reservations, now, *zip(*released, strict=True))
    if extended:
        await connection.execute(queries.extend_reservations, *zip(*extended, strict=True))


def _add(changes: dict[HoldKey, Decimal], key: HoldKey, amount: Decimal) -> None:
    changes[key] = EXACT.add(changes.get(key, ZERO), amount)


async def expire(connection: Connection, org_ids: Sequence[str], now: datetime) -> int:
    """End reservations that are past their time, and say so. The caller holds the organizations' gates.

    Returns:
        How many; at most `EXPIRE_AT_ONCE`.
    """
    rows = await connection.fetch(queries.expire_reservations, org_ids, now, EXPIRE_AT_ONCE)
    await store.append_each(
        connection, [(row["org_id"], f"reservation/{row['id']}", _expired(row)) for row in rows], occurred_at=now
    )
    return len(rows)


def _expired(row: asyncpg.Record) -> ReservationExpired:
    return ReservationExpired(
        reservation_id=row["id"],
        user_id=row["user_id"],
        reserved_at=row["reserved_at"],
        expired_at=row["expires_at"],
        held={meter: amount for (meter, user), amount in holds_in(row["holds"]).items() if not user},
    )


async def expire_due(connection: Connection, now: datetime) -> int:
    """End what is past its time, of any organization, in a transaction of its own. 0: nothing was due."""
    async with connection.transaction():
        rows = await connection.fetch(queries.due_organizations, now, EXPIRE_AT_ONCE)
        org_ids = [row["org_id"] for row in rows]
        if not org_ids:
            return 0
        await connection.fetch(queries.hold_gates, org_ids)
        return await expire(connection, org_ids, now)


async def next_expiries(connection: Connection, org_ids: Collection[str]) -> dict[str, datetime]:
    """When the first open reservation of each organization ends, if it has one."""
    rows = await connection.fetch(queries.next_expiry, list(org_ids))
    return {row["org_id"]: row["expires_at"] for row in rows}


async def forget_ended(connection: Connection, before: datetime, at_once: int) -> bool:
    """Forget reservations that ended before; whether there may be more."""
    return int((await connection.execute(queries.forget_ended, before, at_once)).rsplit(" ", 1)[1]) == at_once
