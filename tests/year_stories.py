"""What happens to each organization in the year of `year_table`, and billing awake through all of it.

Time jumps to the next moment at which anything happens: somebody does something, something falls due at Stripe or at
billing, or a webhook comes: up to four hours late, in any order, some of them twice.
"""

import heapq
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from paying_world import StripeWorld
from usage_closings import close, do
from year_table import datetime_of, plans_of

from billing import collecting, ledger, manual_invoice, manual_invoices, paid_changes
from billing.commands import Assign, Cancel, PaymentNeeded
from billing.ledger import Entry
from billing.manual_invoices import Payment
from standalone.stripe_simulator import cards, control
from standalone.stripe_simulator import checkout as stripe_checkout
from standalone.stripe_simulator.calls import call

BEGIN, END = datetime_of("2027-01-01"), datetime_of("2028-03-06")
OPERATOR = "user_operator"

Step = Callable[[StripeWorld, str], Awaitable[Any]]

_DUE = """
SELECT min(due) FROM (
    SELECT due_at AS due FROM subscriptions UNION ALL SELECT due_at FROM dunning UNION ALL
    SELECT due_at FROM invoices WHERE status = 'open' AND collected_by = 'operator' UNION ALL
    SELECT due_at FROM billing_terms UNION ALL
    SELECT next_attempt_at FROM stripe_intents WHERE state = 'pending' UNION ALL
    SELECT next_attempt_at FROM stripe_events WHERE state = 'pending'
) AS everything WHERE due > $1
"""


def buy(plan: str) -> Step:
    return lambda world, org: world.subscribe(org, plan)


def change(plan: str, *, at_period_end: bool = False) -> Step:
    return lambda world, org: world.change(org, plan, at_period_end=at_period_end)


def card(behaviour: str) -> Step:
    return lambda world, org: world.card_of(org, behaviour)


def cancel(*, at_period_end: bool) -> Step:
    async def step(world: StripeWorld, org: str) -> None:
        reference = (await world.subscription(org))["payment_reference"]
        await paid_changes.cancel(world.payments, reference, org, world.now, at_period_end=at_period_end)

    return step


async def resume(world: StripeWorld, org: str) -> None:
    reference = (await world.subscription(org))["payment_reference"]
    await paid_changes.resume(world.payments, reference, org, world.now)


async def asks_in_vain(world: StripeWorld, org: str) -> None:
    with pytest.raises(PaymentNeeded):
        await world.change(org, "professional")


def pays_on_the_page(new_card: str | None = None) -> Step:
    async def step(world: StripeWorld, org: str) -> None:
        (invoice,) = world.simulator.world.where("invoice", customer=await world.customer_of(org), status="open")
        control.pay_in_person(world.simulator.world, invoice, new_card)

    return step


async def takes_a_bad_card(world: StripeWorld, org: str) -> None:
    stripe = world.simulator.world
    stripe_checkout.portal_card(stripe, await world.customer_of(org), cards.card_named("pm_card_visa"))
    await world.card_of(org, "insufficient_funds")


def refund(amount: int) -> Step:
    async def step(world: StripeWorld, org: str) -> None:
        charges = world.simulator.world.where("charge", customer=await world.customer_of(org), paid=True)
        call(world.simulator.world, "POST", "/v1/refunds", {"charge": charges[-1]["id"], "amount": amount})

    return step


def grant(amount: str) -> Step:
    async def step(world: StripeWorld, org: str) -> None:
        entry = Entry(f"credit/{amount}", "credit", Decimal(amount), "for your trouble", OPERATOR, world.now)
        async with world.pool.acquire() as connection, connection.transaction():
            await ledger.grant(connection, org, entry)

    return step


def used(month: str, sequence: int = 1, **totals: str) -> Step:
    return lambda world, org: close(world.pool, org, month, world.now, totals, sequence=sequence)


def given(plan: str) -> Step:
    return lambda world, org: do(world.pool, org, world.now, Assign(plan))


async def billed_by_us(world: StripeWorld, org: str) -> None:
    terms = manual_invoice.set_terms(None, world.now.date(), 14, '{"name": "Example"}')
    async with world.pool.acquire() as connection, connection.transaction():
        await ledger.hold(connection, org)
        await manual_invoices.save_terms(connection, org, terms, OPERATOR, world.now)


async def billed_no_longer(world: StripeWorld, org: str) -> None:
    async with world.pool.acquire() as connection, connection.transaction():
        await ledger.hold(connection, org)
        terms = await manual_invoices.terms_of(connection, org)
        assert terms is not None
        ended = manual_invoice.end_terms(terms, world.now.date())
        await manual_invoices.save_terms(connection, org, ended, OPERATOR, world.now)
    await do(world.pool, org, world.now, Cancel(at_period_end=False))


def paid_by_hand(day: str, *amounts: str) -> Step:
    """One payment for each open invoice, the oldest first."""

    async def step(world: StripeWorld, org: str) -> None:
        async with world.pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT invoice_id FROM invoices WHERE org_id = $1 AND status = 'open' ORDER BY created_at", org
            )
            for row, amount in zip(rows, amounts, strict=True):
                paid = Payment(row["invoice_id"], Decimal(amount), f"bank/{day}/{amount}", date.fromisoformat(day))
                await manual_invoices.record_payment(
                    connection, org, paid, OPERATOR, world.now, world.payments.grace
                )  # fmt: skip

    return step


STORIES: Mapping[str, Sequence[tuple[str, Step]]] = {
    "month-ends": [
        ("2027-01-31 09:00", buy("starter")),
        ("2028-02-10 09:00", change("professional")),
    ],
    "up-and-down": [
        ("2027-02-10 08:00", buy("starter")),
        ("2027-02-20 20:00", change("professional")),
        ("2027-03-20 08:00", change("enterprise")),
        ("2027-05-01 08:00", change("starter")),
    ],
    "later": [
        ("2027-01-15 10:00", buy("professional")),
        ("2027-02-20 12:00", change("starter", at_period_end=True)),
        ("2027-06-01 12:00", cancel(at_period_end=True)),
        ("2027-06-05 12:00", resume),
        ("2027-10-01 12:00", cancel(at_period_end=True)),
        ("2027-12-31 20:00", buy("starter")),
    ],
    "fails": [
        ("2027-01-20 09:00", buy("professional")),
        ("2027-02-19 12:00", card("generic_decline")),
        ("2027-02-22 12:00", card("succeeds")),
        ("2027-04-19 12:00", card("generic_decline")),
        ("2027-04-22 12:00", pays_on_the_page("pm_card_mastercard")),
        ("2027-07-19 12:00", takes_a_bad_card),
        ("2027-09-05 09:00", buy("starter")),
    ],
    "leaves": [
        ("2027-03-03 09:00", buy("starter")),
        ("2027-03-12 08:00", card("generic_decline")),
        ("2027-03-12 09:00", asks_in_vain),
        ("2027-03-17 09:00", cancel(at_period_end=False)),
    ],
    "confirms": [
        ("2027-02-05 09:00", buy("starter")),
        ("2027-03-04 12:00", card("authentication_required")),
        ("2027-03-06 15:00", pays_on_the_page()),
        ("2027-03-20 12:00", cancel(at_period_end=True)),
    ],
    "credited": [
        ("2027-03-01 06:00", buy("starter")),
        ("2027-03-10 12:00", grant("150.00")),
        ("2027-06-03 12:00", refund(2_500)),
        ("2027-07-10 12:00", grant("98.70")),
    ],
    "metered": [
        ("2027-01-10 09:00", buy("professional")),
        ("2027-02-04", used("2027-01", debates="260", cost_usd="40.05")),
        ("2027-02-20", used("2027-01", 2, debates="263", cost_usd="40.15")),
        ("2027-03-04", used("2027-02", debates="200", cost_usd="40")),
        ("2027-04-04", used("2027-03", debates="3", cost_usd="1040.1234")),
        ("2027-04-20", used("2027-03", 2, debates="3", cost_usd="1030.1234")),
        ("2027-05-04", used("2027-04", debates="0")),
        ("2027-05-20 12:00", cancel(at_period_end=True)),
        ("2027-06-04", used("2027-05", debates="205")),
        ("2027-07-04", used("2027-06", debates="210")),
    ],
    "by-hand": [
        ("2027-02-01", billed_by_us),
        ("2027-02-01", given("starter")),
        ("2027-03-11", given("professional")),
        ("2027-03-12 12:00", paid_by_hand("2027-03-12", "99.00")),
        ("2027-04-12 12:00", paid_by_hand("2027-04-12", "234.49")),
        ("2027-04-20 12:00", grant("50.00")),
        ("2027-05-10 12:00", paid_by_hand("2027-05-10", "249.00")),
        ("2027-06-04", used("2027-05", debates="201")),
        ("2027-06-10 12:00", paid_by_hand("2027-06-10", "299.50")),
        ("2027-08-10 12:00", paid_by_hand("2027-08-10", "299.00", "270.06")),
        ("2027-08-16", given("starter")),
        ("2027-09-10 12:00", paid_by_hand("2027-09-10", "51.10")),
        ("2027-09-11", billed_no_longer),
        ("2027-10-08 12:00", paid_by_hand("2027-10-08", "33.00")),
    ],
}


async def live_through(world: StripeWorld, orgs: Collection[str], until: datetime, chance: random.Random) -> None:
    """Let the stories of these organizations happen until then; their plans are compared with the table on the way."""
    steps = [(datetime_of(at), number, org, step) for org in orgs for number, (at, step) in enumerate(STORIES[org])]
    steps = sorted((one for one in steps if one[0] < until), key=lambda one: one[:3])
    checks = sorted((at, org, plan) for org in orgs for at, plan in plans_of(org) if at < until)
    coming: list[tuple[datetime, int, dict[str, Any]]] = []
    heard = 0
    for org in orgs:
        await world.enroll(org)
    while world.now < until:
        stripe_due = world.simulator.world.next_due()
        own_due = await world.pool.fetchval(_DUE, world.now)
        dues = [steps[0][0] if steps else until, checks[0][0] if checks else until, own_due or until]
        dues += [coming[0][0] if coming else until, until]
        dues += [datetime.fromtimestamp(stripe_due, tz=until.tzinfo)] if stripe_due is not None else []
        await world.advance(max(world.now, min(dues)))
        while steps and steps[0][0] <= world.now:
            _, _, org, step = steps.pop(0)
            await step(world, org)
        for event in world.simulator.world.events[heard:]:
            for _ in range(1 if chance.random() < 0.7 else 2):
                at = world.now + timedelta(hours=chance.randint(0, 4))
                heapq.heappush(coming, (at, chance.randrange(2**62), event))
        heard = len(world.simulator.world.events)
        while coming and coming[0][0] <= world.now:
            await world.receive(heapq.heappop(coming)[2])
        await collecting.draw_up_invoices(world.payments, world.now)
        await world.settle()
        while checks and checks[0][0] <= world.now:
            at, org, plan = checks.pop(0)
            in_force = (await world.subscription(org))["plan"]
            assert in_force == plan, f"{org} has {in_force} at {at}, and by the table {plan}"
