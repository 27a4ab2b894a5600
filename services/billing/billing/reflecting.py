"""Bringing an organization up to date with what Stripe says: what is paid for is in force, what is owed is dunned.

Nothing here looks at a webhook: what Stripe says *now* decides, read in the organization's turn, so that neither the
order in which webhooks come nor how often can matter. What is read is applied in one transaction.
"""

from collections.abc import Collection, Sequence
from dataclasses import astuple, replace
from datetime import datetime, timedelta

import asyncpg

from aragora.chassis import sql, store
from aragora.chassis.sql import Connection
from aragora.contracts.events import GracePeriodExpired
from billing import dunning, intents, invoices, ledger, standing, subscriptions, usage_periods
from billing.attention import raise_attention
from billing.commands import Reflect
from billing.dunning import Dunning, Fate, Owed
from billing.invoice import Invoice
from billing.payments import Payments
from billing.standing import ENDED, OWES, StripeSubscription
from billing.stripe_gateway import StripeRefused
from billing.subscription import Subscription
from billing.turns import turn_of

queries = sql.load("billing", "sql/reflecting.sql")

DUNNING = "dunning"
"""The stream of an organization's dunning."""
CANCEL_UNPAID = "cancel_unpaid"
CANCEL_SECOND = "cancel_second"
CANCEL_CLOSED = "cancel_closed"
_FATES: dict[str, Fate] = {"paid": "paid", "void": "voided", "uncollectible": "uncollectible"}
_FINAL = frozenset({"paid", "void"})


async def reflect(payments: Payments, org_id: str, *, now: datetime, invoice_ids: Collection[str] = ()) -> Subscription:
    """Bring an organization up to date with Stripe, and these of its invoices. Returns its subscription.

    Raises:
        StripeAway: nothing was changed; try again.
        StripeRefused: Stripe does not tell; nothing was changed.
    """
    async with turn_of(payments.turns, org_id) as connection:
        return await reflect_in_turn(payments, connection, org_id, now=now, invoice_ids=invoice_ids)


async def reflect_in_turn(
    payments: Payments, connection: Connection, org_id: str, *, now: datetime, invoice_ids: Collection[str] = ()
) -> Subscription:
    """The same, for whoever has the organization's turn already: `connection` is the turn's."""
    known = await _known_subscriptions(connection, org_id)
    customers = await connection.fetch(queries.customers_of, org_id)
    said = await _read_subscriptions(
        payments, [row["customer_id"] for row in customers if not row["deleted_at"]], known
    )
    found = await _read_invoices(payments, connection, org_id, said, invoice_ids, customers)
    async with connection.transaction():
        await ledger.hold(connection, org_id)  # first, as whoever bills and credits does
        paid_by = await connection.fetchval(queries.paid_by, org_id)
        for one in said:
            await connection.execute(queries.save_stripe_subscription, org_id, *_row(one), now)
        state = await _settle(connection, org_id, payments.grace, said, found, now)
        await _ask_for_what_follows(connection, org_id, said, state, now)
        if state.paid_by not in (None, paid_by):
            await ledger.move_to_stripe(connection, org_id, now)
        for one in said:
            before = known.get(one.subscription_id)
            if one.status in ENDED and before is not None and before.status not in ENDED:
                await usage_periods.invoice_what_waits(connection, org_id, one.subscription_id, now)
    return state


async def reconsider(connection: Connection, org_id: str, *, now: datetime, grace: timedelta) -> Subscription:
    """What follows from what is known already, without asking Stripe: after a payment by hand, say.

    In the caller's transaction.
    """
    known = await _known_subscriptions(connection, org_id)
    state = await _settle(connection, org_id, grace, list(known.values()), [], now)
    await _ask_for_what_follows(connection, org_id, list(known.values()), state, now)
    return state


async def _read_subscriptions(
    payments: Payments, customer_ids: Sequence[str], known: dict[str, StripeSubscription]
) -> list[StripeSubscription]:
    plan_of = payments.prices.plan_of
    said = {}
    for customer_id in customer_ids:
        for one in await payments.gateway.subscriptions_of(customer_id):
            said[one["id"]] = standing.subscription_of(one, plan_of)
    # Those of a customer who was deleted are not in any list.
    for subscription_id, old in known.items():
        if subscription_id not in said and old.status not in ENDED:
            said[subscription_id] = standing.subscription_of(
                await payments.gateway.subscription(subscription_id), plan_of
            )
    return [*said.values(), *(old for each, old in known.items() if each not in said)]


async def _read_invoices(
    payments: Payments, connection: Connection, org_id: str, said: Sequence[StripeSubscription],
    invoice_ids: Collection[str], customers: Sequence[asyncpg.Record],
) -> list[Invoice]:  # fmt: skip
    """The invoices that are named, those that are open where somebody owes, and the one that is dunned."""
    plan_of = payments.prices.plan_of
    wanted = set(invoice_ids)
    _, state = await load_dunning(connection, org_id)
    if state.invoice_id is not None:
        wanted.add(state.invoice_id)
    if any(one.status in OWES for one in said):
        for customer in customers:
            if not customer["deleted_at"]:
                listed = await payments.gateway.invoices_of(customer["customer_id"], status="open")
                wanted |= {one["id"] for one in listed}
    rows = await connection.fetch(queries.invoice_states, org_id, list(wanted))
    final = {row["invoice_id"] for row in rows if row["status"] in _FINAL} - set(invoice_ids)
    ours = {row["invoice_id"] for row in await connection.fetch(invoices.queries.own_among, org_id, list(wanted))}
    found = []
    for invoice_id in sorted(wanted - final - ours):
        try:
            found.append(standing.invoice_of(await payments.gateway.invoice(invoice_id), plan_of))
        except StripeRefused as refusal:
            if not refusal.is_missing:
                raise
            await connection.execute(queries.forget_draft, org_id, invoice_id)
            await connection.execute(queries.forget_draft_lines, org_id, invoice_id)
    return found


async def _settle(
    connection: Connection, org_id: str, grace: timedelta, said: Sequence[StripeSubscription],
    found: Sequence[Invoice], now: datetime,
) -> Subscription:  # fmt: skip
    for invoice in found:
        await invoices.save(connection, org_id, await _with_versions(connection, org_id, invoice), now=now)
    dunned, has_just_expired = await _dun(connection, org_id, grace, said, now)
    known = await subscriptions.load_plans(connection)
    pays = standing.paying(said, now, owing_counts=dunned.expired_at is None)
    paid = standing.paid_of(pays, known.ids, now)
    if paid is None and not has_just_expired and not await connection.fetchval(queries.is_subscribed, org_id):
        return Subscription()
    return await subscriptions.execute(connection, org_id, Reflect(paid, has_just_expired), known, now=now)


async def _dun(
    connection: Connection, org_id: str, grace: timedelta, said: Sequence[StripeSubscription], now: datetime
) -> tuple[Dunning, bool]:
    version, state = await load_dunning(connection, org_id)
    owed = await _owed(connection, org_id, said, now)
    fate: Fate | None = None
    if state.invoice_id is not None:
        rows = await connection.fetch(queries.invoice_states, org_id, [state.invoice_id])
        fate = _FATES.get(rows[0]["status"]) if rows else None
    events = dunning.decide(state, owed, fate, grace, now)
    if not events:
        return state, False
    await store.append(connection, DUNNING, version, events, org_id=org_id, occurred_at=now)
    for event in events:
        state = dunning.evolve(state, event)
    row = (state.invoice_id, state.attempt, state.started_at, state.ends_at, state.expired_at, state.due_at)
    await connection.execute(queries.save_dunning, org_id, *row)
    return state, any(isinstance(event, GracePeriodExpired) for event in events)


async def _owed(connection: Connection, org_id: str, said: Sequence[StripeSubscription], now: datetime) -> Owed | None:
    """The oldest invoice that is owed: of a subscription that Stripe calls past due, of none, or one of ours.

    An upgrade that was not paid has an open invoice too, and the plan that there was goes on: that is nobody's debt.
    """
    owing = {one.subscription_id for one in said if one.status in OWES}
    for row in await connection.fetch(invoices.queries.open_invoices, org_id):
        of_stripe = row["collected_by"] == "stripe"
        concerned = row["subscription_id"] is None or row["subscription_id"] in owing
        if (of_stripe and concerned and row["attempts"] > 0) or (not of_stripe and row["since"] <= now):
            since = row["since"] or now
            return Owed(row["invoice_id"], row["amount"], row["currency"], row["attempts"], since)
    return None


async def load_dunning(connection: Connection, org_id: str) -> tuple[int, Dunning]:
    """The version of the stream, and where the dunning stands."""
    version, events = await store.load(connection, DUNNING, org_id=org_id)
    state = Dunning()
    for event in events:
        state = dunning.evolve(state, event)
    return version, state


async def _ask_for_what_follows(
    connection: Connection, org_id: str, said: Sequence[StripeSubscription], state: Subscription, now: datetime
) -> None:
    """A subscription that nobody paid in time ends at Stripe too, and a second one; operators hear of what is odd."""
    _, dunned = await load_dunning(connection, org_id)
    is_closed = await connection.fetchval(intents.queries.is_closed, org_id)
    for one in said:
        if not one.is_live:
            continue
        about = {"subscription": one.subscription_id}
        if is_closed:
            once = f"{CANCEL_CLOSED}/{one.subscription_id}"
            await intents.record(connection, org_id, CANCEL_CLOSED, about, now, once=once, turn=timedelta(0))
        elif one.plan is None:
            await raise_attention(connection, "unknown_price", one.subscription_id, now, org_id=org_id)
        elif one.status in OWES and dunned.expired_at is not None:
            once = f"{CANCEL_UNPAID}/{one.subscription_id}/{dunned.invoice_id}"
            await intents.record(connection, org_id, CANCEL_UNPAID, about, now, once=once, turn=timedelta(0))
        elif state.paid_by not in (None, one.subscription_id) and one.cancel_at is None:
            await raise_attention(connection, "second_subscription", one.subscription_id, now, org_id=org_id)
            once = f"{CANCEL_SECOND}/{one.subscription_id}"
            await intents.record(connection, org_id, CANCEL_SECOND, about, now, once=once, turn=timedelta(0))


async def _with_versions(connection: Connection, org_id: str, invoice: Invoice) -> Invoice:
    """The invoice, its lines with the version of the plan that was sold: Stripe knows prices only."""
    if all(line.plan is None for line in invoice.lines):
        return invoice
    row = await connection.fetchrow(subscriptions.queries.subscription_of, org_id)
    known = await subscriptions.load_plans(connection)

    def version(plan: str) -> int:
        is_sold = row is not None and row["plan"] == plan
        return row["plan_version"] if row is not None and is_sold else known.current(plan).version

    lines = tuple(
        line if line.plan is None else replace(line, plan_version=version(line.plan)) for line in invoice.lines
    )
    return replace(invoice, lines=lines)


async def _known_subscriptions(connection: Connection, org_id: str) -> dict[str, StripeSubscription]:
    rows = await connection.fetch(queries.stripe_subscriptions_of, org_id)
    return {row["subscription_id"]: StripeSubscription(**row) for row in rows}


def _row(one: StripeSubscription) -> tuple[object, ...]:
    return astuple(one)
