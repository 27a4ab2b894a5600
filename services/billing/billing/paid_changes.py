"""Changing what is paid for through Stripe: another plan, a cancellation, its end; and what a change would cost.

Stripe's subscription is changed by an intent, in the organization's turn, and then reflected: what is in force here
follows from what Stripe says, never from what was asked. What an earlier request began is ended first.

A dearer plan begins when its invoice is paid, and not before. A change at the end of the period changes Stripe's price
at once, without charge or credit, and writes on the subscription which plan stays in force until when.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aragora.chassis.sql import Connection
from aragora.contracts.plans import Plan
from billing import intents, reflecting
from billing.commands import AlreadyOnPlan, NothingToResume, PaidThroughStripe, PaymentNeeded, PlanNotOffered, Refused
from billing.payments import Payments
from billing.plans import Plans
from billing.standing import KEPT_PLAN, KEPT_UNTIL, OWES, PAYS, moment, subscription_of
from billing.stripe_gateway import Json, StripeRefused
from billing.stripe_kinds import CANCEL_NOW, CHANGE_SUBSCRIPTION
from billing.subscriptions import load_plans
from billing.subscriptions import queries as subscription_queries
from billing.turns import turn_of

KEPT_PRICE = "kept_price"
"""In the metadata, beside `kept_plan`: its price, for who changes their mind."""
_NOTHING_KEPT = {KEPT_PLAN: "", KEPT_UNTIL: "", KEPT_PRICE: ""}


class AlreadyChanging(Refused):
    """A change at the end of the period is planned. Take it back first."""


class PaymentOpen(Refused):
    """The last invoice is not paid. Pay that first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which plan somebody wants instead, and when."""

    plan: str
    at_period_end: bool = False
    by_operator: bool = False


@dataclass(frozen=True, slots=True)
class _Paid:
    """Stripe's subscription as it is now, and the plan that is in force by it."""

    said: Json
    in_force: str
    item: Json
    kept_price: str | None
    """Of the plan in force, if Stripe's price is already that of the next one."""
    was_begun: bool
    """An earlier request was ended first: it may have been the same one."""

    @property
    def subscription_id(self) -> str:
        return str(self.said["id"])

    @property
    def ends(self) -> bool:
        return bool(self.said["cancel_at_period_end"] or self.said["cancel_at"])

    @property
    def is_plain(self) -> bool:
        return not self.ends and self.kept_price is None

    def going_on(self) -> Json:
        """What takes back a cancellation: ours is with the period, and the portal's names the moment."""
        if self.said["cancel_at_period_end"]:
            return {"cancel_at_period_end": False}
        return {"cancel_at": ""} if self.said["cancel_at"] else {}

    def undone(self) -> Json:
        """What takes back whatever was planned for the end of the period."""
        change = self.going_on()
        if self.kept_price is not None:
            items = [{"id": self.item["id"], "price": self.kept_price}]
            change |= {"items": items, "proration_behavior": "none", "metadata": _NOTHING_KEPT}
        return change


async def change(payments: Payments, reference: str, org_id: str, choice: Choice, plans: Plans, now: datetime) -> None:
    """To another plan, now or at the end of the period.

    Raises:
        UnknownPlan, Refused: nothing was done. `PaymentNeeded`: the dearer plan waits for its invoice to be paid.
        StripeNotConfigured: the plan has no price.
        StripeAway: it is done later, if it was not done already.
        StripeRefused: Stripe will not do it.
    """
    plan = plans.current(choice.plan)
    if not plan.listed and not choice.by_operator:
        raise PlanNotOffered(f"{plan.name} is not offered; GET /api/subscription/plans lists what is.")
    if plan.is_default:
        await cancel(payments, reference, org_id, now, at_period_end=choice.at_period_end)
        return
    if plan.price_usd_per_month == 0:
        raise PaidThroughStripe(f"{plan.name} costs nothing: cancel what is paid for, and choose it afterwards.")
    price_id = payments.prices.of(plan.plan)

    async def do(turn: Connection, paid: _Paid) -> None:
        _demand_paid(paid)
        if paid.in_force == plan.plan:
            if paid.is_plain and not paid.was_begun:
                raise AlreadyOnPlan(f"The organization has {plan.name} already.")
            await _update(payments, turn, org_id, paid, paid.undone(), now)
        elif choice.at_period_end:
            await _update(payments, turn, org_id, paid, _later(paid, price_id), now)
        else:
            await _update(payments, turn, org_id, paid, paid.undone(), now)
            is_higher = plan.rank > plans.current(paid.in_force).rank
            said = await _update(payments, turn, org_id, paid, _at_once(paid, price_id, is_higher=is_higher), now)
            if said.get("pending_update"):
                raise await _not_paid(payments, said, plan)

    await _in_turn(payments, reference, org_id, do, now)


async def cancel(payments: Payments, reference: str, org_id: str, now: datetime, *, at_period_end: bool) -> None:
    """End it: at the end of what is paid for, or now, when nothing is given back. Raises as `change` does."""

    async def do(turn: Connection, paid: _Paid) -> None:
        if not at_period_end:
            await _ask(payments, turn, org_id, CANCEL_NOW, {"subscription": paid.subscription_id}, now)
        elif not paid.ends:
            await _update(payments, turn, org_id, paid, {"cancel_at_period_end": True}, now)

    await _in_turn(payments, reference, org_id, do, now)


async def resume(payments: Payments, reference: str, org_id: str, now: datetime) -> None:
    """Take back what is planned for the end of the period. Raises as `change` does."""

    async def do(turn: Connection, paid: _Paid) -> None:
        if paid.is_plain and not paid.was_begun:
            raise NothingToResume("Nothing is pending: no cancellation and no change can be taken back.")
        await _update(payments, turn, org_id, paid, paid.undone(), now)

    await _in_turn(payments, reference, org_id, do, now)


async def preview(
    payments: Payments, reference: str, org_id: str, plan: Plan, plans: Plans, now: datetime
) -> tuple[Json | None, Json]:
    """What a change to a plan now would bring: the invoice for it, if there is one, and the next regular one.

    As Stripe would write them. Raises as `change` does.
    """
    payments.gateway.demand()
    price_id = payments.prices.of(plan.plan)
    paid = await _read(payments, await payments.gateway.subscription(reference), org_id, now)
    _demand_paid(paid)
    if paid.kept_price is not None:
        raise AlreadyChanging("A change is planned already: take it back with …/subscription/resume first.")
    if paid.in_force == plan.plan:
        raise AlreadyOnPlan(f"The organization has {plan.name} already.")
    asked: dict[str, Any] = {"subscription": reference, "customer": paid.said["customer"]}
    items = [{"id": paid.item["id"], "price": price_id}]

    async def ask(proration: str) -> Json:
        return await payments.gateway.preview(
            **asked, subscription_details={"items": items, "proration_behavior": proration}
        )

    if plan.rank > plans.current(paid.in_force).rank:
        return await ask("always_invoice"), await ask("none")
    return None, await ask("create_prorations")


async def _in_turn(
    payments: Payments, reference: str, org_id: str, do: Callable[[Connection, _Paid], Awaitable[None]], now: datetime
) -> None:
    """End what was begun, do it, and reflect what came of it, also if it was refused."""
    payments.gateway.demand()
    async with turn_of(payments.turns, org_id) as turn:
        asked = (CHANGE_SUBSCRIPTION, CANCEL_NOW)
        begun = await intents.carry_out_begun(turn, payments.pool, payments.gateway, payments.kinds, org_id, asked, now)
        said = await payments.gateway.subscription(reference)
        try:
            if said["status"] not in PAYS | OWES | {"paused"}:
                raise PaidThroughStripe("The subscription at Stripe has ended; look at the plan again.")
            await do(turn, await _read(payments, said, org_id, now, was_begun=bool(begun)))
        except (Refused, StripeRefused):
            await _reflect(payments, turn, org_id, reference, now)
            raise
        await _reflect(payments, turn, org_id, reference, now)


async def _reflect(payments: Payments, turn: Connection, org_id: str, reference: str, now: datetime) -> None:
    latest = (await payments.gateway.subscription(reference))["latest_invoice"]
    await reflecting.reflect_in_turn(payments, turn, org_id, now=now, invoice_ids=[latest] if latest else ())


async def _read(payments: Payments, said: Json, org_id: str, now: datetime, *, was_begun: bool = False) -> _Paid:
    (item, *_) = said["items"]["data"]
    found = subscription_of(said, payments.prices.plan_of)
    async with payments.pool.acquire() as connection:
        known = await load_plans(connection)
        row = await connection.fetchrow(subscription_queries.subscription_of, org_id)
    kept = found.kept(known.ids, now)
    if kept is not None:
        kept_price = (said.get("metadata") or {}).get(KEPT_PRICE) or payments.prices.of(kept)
        return _Paid(said, kept, item, kept_price, was_begun)
    # At a price that is not known any more, the plan is the one that it was sold for.
    return _Paid(said, found.plan or (row["plan"] if row else ""), item, None, was_begun)


def _demand_paid(paid: _Paid) -> None:
    if paid.said["status"] not in PAYS:
        raise PaymentOpen("The last invoice is not paid: pay it first. GET /api/billing/subscription says where.")


def _later(paid: _Paid, price_id: str) -> Json:
    until = moment(paid.item["current_period_end"]).astimezone(UTC).isoformat()
    kept_price = paid.kept_price or paid.item["price"]["id"]
    change: Json = {
        "items": [{"id": paid.item["id"], "price": price_id}],
        "proration_behavior": "none",
        "metadata": {KEPT_PLAN: paid.in_force, KEPT_UNTIL: until, KEPT_PRICE: kept_price},
    }
    return change | paid.going_on()


def _at_once(paid: _Paid, price_id: str, *, is_higher: bool) -> Json:
    items = [{"id": paid.item["id"], "price": price_id}]
    if not is_higher:
        return {"items": items, "proration_behavior": "create_prorations"}
    return {"items": items, "proration_behavior": "always_invoice", "payment_behavior": "pending_if_incomplete"}


async def _update(payments: Payments, turn: Connection, org_id: str, paid: _Paid, change: Json, now: datetime) -> Json:
    if not change:
        return paid.said
    asked = {"subscription": paid.subscription_id, "change": change}
    return await _ask(payments, turn, org_id, CHANGE_SUBSCRIPTION, asked, now)


async def _ask(payments: Payments, turn: Connection, org_id: str, kind: str, parameters: Json, now: datetime) -> Json:
    try:
        return await intents.ask(turn, payments.pool, payments.gateway, payments.kinds, org_id, kind, parameters, now)
    except StripeRefused as refusal:
        if refusal.is_card:
            message = "The card was declined, and nothing was changed: update it, and ask again."
            raise PaymentNeeded(message) from refusal
        raise


async def _not_paid(payments: Payments, said: Json, plan: Plan) -> PaymentNeeded:
    """Why a dearer plan is not in force yet, in words."""
    where = "GET /api/billing/subscription gives the address of the invoice's page, open for 23 hours"
    if await _needs_action(payments, said["latest_invoice"]):
        return PaymentNeeded(f"The bank asks for a confirmation: {plan.name} begins when it is given. {where}.")
    return PaymentNeeded(
        f"The card was declined: {plan.name} begins when its invoice is paid. Pay it with another card, or update the "
        f"card with POST /api/billing/portal and ask again. {where}."
    )


async def _needs_action(payments: Payments, invoice_id: str) -> bool:
    said = await payments.gateway.invoice(invoice_id)
    every = [one["payment"].get("payment_intent") for one in said["payments"]["data"]]
    ids = [one if isinstance(one, str) else one["id"] for one in every if one]
    for payment_intent in ids:
        if (await payments.gateway.payment_intent(payment_intent))["status"] == "requires_action":
            return True
    return False
