"""Beginning to pay: the way to Stripe's page and back, once per organization, whatever goes wrong on it.

All of it is in the organization's turn, and every step is an intent: a customer who stands for the organization, the
end of checkouts that are open, a new one. Whoever stops in between is followed by a worker, or by the next checkout,
which ends first what was begun.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from aragora.chassis.sql import Connection
from billing import intents, reflecting
from billing.commands import NotSubscribed, PaidThroughStripe
from billing.intents import queries
from billing.payment_answers import Checkout
from billing.payments import Payments
from billing.standing import OWES, PAYS, moment
from billing.stripe_gateway import Json, StripeAway, StripeRefused
from billing.stripe_kinds import CREATE_CUSTOMER, EXPIRE_CHECKOUT, OPEN_CHECKOUT
from billing.turns import turn_of

WORTH_GIVING_AGAIN = timedelta(minutes=10)
"""So long an open checkout must still live to be given again."""
_RUNNING = PAYS | OWES | {"paused"}
_PAYS_ALREADY = (
    "The organization pays through Stripe already: GET /api/billing/subscription says how that stands, and its plan is "
    "changed with POST /api/subscription/organizations/{org_id}/subscription/change."
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants to buy, and where Stripe is to send them afterwards."""

    org_id: str
    plan: str
    price_id: str
    success_url: str
    cancel_url: str


async def check_out(payments: Payments, wanted: Wanted, email: str | None, now: datetime) -> Checkout:
    """The page to pay on: a new one, or the one that is open for the same plan.

    `email` goes to Stripe, for its receipts, and nowhere else.

    Raises:
        NotSubscribed: there is no such organization, or no longer.
        PaidThroughStripe: somebody pays already.
        StripeAway: it may be open all the same; asking again finds it.
        StripeRefused: Stripe will not have it.
    """
    org_id = wanted.org_id
    async with turn_of(payments.turns, org_id) as turn:
        await _demand_free(turn, org_id)
        asked = (CREATE_CUSTOMER, OPEN_CHECKOUT, EXPIRE_CHECKOUT)
        await intents.carry_out_begun(turn, payments.pool, payments.gateway, payments.kinds, org_id, asked, now)
        customer = await _customer(payments, turn, org_id, email, now)
        if await _pays_at_stripe(payments, customer):
            await reflecting.reflect_in_turn(payments, turn, org_id, now=now)
            await _demand_free(turn, org_id)
        session = await _open_already(payments, turn, wanted, customer, now)
        if session is None:
            session = await _ask(payments, turn, org_id, OPEN_CHECKOUT, _session(wanted, customer), now)
        return Checkout(session["id"], session["url"], moment(session["expires_at"]))


async def _demand_free(turn: Connection, org_id: str) -> None:
    subscribed = await turn.fetchval(reflecting.queries.is_subscribed, org_id)
    if not subscribed or await turn.fetchval(queries.is_closed, org_id):
        raise NotSubscribed("There is no such organization here, or no longer.")
    if await turn.fetchval(queries.paying_subscription, org_id) is not None:
        raise PaidThroughStripe(_PAYS_ALREADY.format(org_id=org_id))


async def _customer(payments: Payments, turn: Connection, org_id: str, email: str | None, now: datetime) -> str:
    customer: str | None = await turn.fetchval(reflecting.queries.live_customer_of, org_id)
    if customer is not None and not await _name(payments, customer, email):
        await turn.execute(reflecting.queries.customer_deleted, customer, now)
        customer = None
    if customer is None:
        number = await turn.fetchval(queries.customers_asked_for, org_id, CREATE_CUSTOMER)
        made = await _ask(payments, turn, org_id, CREATE_CUSTOMER, {}, now, once=f"customer/{number}")
        customer = str(made["id"])
        await _name(payments, customer, email)
    return customer


async def _name(payments: Payments, customer: str, email: str | None) -> bool:
    """Tell Stripe the customer's address. Returns False if the customer is none any more; the rest is not vital."""
    try:
        await payments.gateway.name_customer(customer, email)
    except StripeRefused as refusal:
        return not refusal.is_missing
    except StripeAway:
        return True
    return True


async def _pays_at_stripe(payments: Payments, customer: str) -> bool:
    """Whether Stripe knows of something that was not heard of here yet."""
    return any(one["status"] in _RUNNING for one in await payments.gateway.subscriptions_of(customer))


async def _open_already(
    payments: Payments, turn: Connection, wanted: Wanted, customer: str, now: datetime
) -> Json | None:
    """The open checkout that does. Others are ended first; one that was paid meanwhile ends the matter."""
    org_id, found, was_paid = wanted.org_id, None, False
    for row in await turn.fetch(queries.open_checkouts, org_id):
        session = await _read_session(payments, row["session_id"])
        if session["status"] == "open":
            if found is None and _does(session, wanted, customer, now):
                found = session
                continue
            session = await _ask(payments, turn, org_id, EXPIRE_CHECKOUT, {"session": session["id"]}, now)
        await turn.execute(queries.end_checkout, org_id, session["id"], session["status"])
        was_paid |= session["status"] == "complete"
    if was_paid:
        await reflecting.reflect_in_turn(payments, turn, org_id, now=now)
        await _demand_free(turn, org_id)
    return found


async def _read_session(payments: Payments, session_id: str) -> Json:
    try:
        return await payments.gateway.checkout(session_id)
    except StripeRefused as refusal:
        if not refusal.is_missing:
            raise
        return {"id": session_id, "status": "expired"}


def _does(session: Json, wanted: Wanted, customer: str, now: datetime) -> bool:
    """Whether an open checkout is as good as a new one."""
    about = session.get("metadata") or {}
    same = (session["customer"], session["success_url"], session["cancel_url"], about.get("price_id")) == (
        customer, wanted.success_url, wanted.cancel_url, wanted.price_id,
    )  # fmt: skip
    return same and bool(session.get("url")) and moment(session["expires_at"]) - now > WORTH_GIVING_AGAIN


def _session(wanted: Wanted, customer: str) -> Json:
    about = {"org_id": wanted.org_id, "plan": wanted.plan, "price_id": wanted.price_id}
    return {
        "plan": wanted.plan,
        "session": {
            "mode": "subscription",
            "customer": customer,
            "client_reference_id": wanted.org_id,
            "line_items": [{"price": wanted.price_id, "quantity": 1}],
            "success_url": wanted.success_url,
            "cancel_url": wanted.cancel_url,
            "metadata": about,
            "subscription_data": {"metadata": {"org_id": wanted.org_id}},
        },
    }


async def _ask(
    payments: Payments, turn: Connection, org_id: str, kind: str, parameters: Json, now: datetime,
    once: str | None = None,
) -> Json:  # fmt: skip
    pool, gateway, kinds = payments.pool, payments.gateway, payments.kinds
    return await intents.ask(turn, pool, gateway, kinds, org_id, kind, parameters, now, once=once)


async def open_portal(payments: Payments, org_id: str, return_url: str) -> str | None:
    """The address of Stripe's page about an organization's card, invoices and plan; None if it was never at Stripe.

    Raises:
        StripeAway, StripeRefused: see there.
    """
    customer: str | None = await payments.pool.fetchval(reflecting.queries.live_customer_of, org_id)
    if customer is None:
        return None
    session = await payments.gateway.open_portal(customer, return_url)
    return str(session["url"])
