"""Changing a plan that is paid for: a dearer one begins when it is paid, a cheaper one at once, any with the period."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from one_service import token
from payments_over_http import PaymentsSite, new_site
from servers import PostgresServer

from billing import collecting
from standalone.stripe_simulator import checkout as stripe_checkout
from standalone.stripe_simulator import control
from standalone.stripe_simulator.faults import Fault


@pytest.fixture(scope="module")
async def site(postgres_server: PostgresServer, billing_template: str, nats_server: str) -> AsyncIterator[PaymentsSite]:
    async with new_site(postgres_server, billing_template, nats_server) as running:
        yield running


class Payer:
    """The owner of an organization that pays."""

    def __init__(self, site: PaymentsSite, org: str) -> None:
        self.site, self.org, self.key = site, org, token(f"owner-of-{org}", org, "owner")
        self.path = f"/api/subscription/organizations/{org}/subscription"

    async def ask(self, verb: str, body: Any = None) -> Any:
        return await self.site.ask("POST", f"{self.path}/{verb}", body, key=self.key)

    async def does(self, verb: str, body: Any = None) -> Any:
        answer = await self.ask(verb, body)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def refused(self, verb: str, body: Any = None) -> tuple[int, str]:
        answer = await self.ask(verb, body)
        return answer.status_code, answer.json()["detail"]

    async def standing(self) -> Any:
        return await self.site.read("GET", "/api/billing/subscription", key=self.key)

    async def pays(self, plan: str) -> None:
        await self.site.world.enroll(self.org)
        await self.site.world.subscribe(self.org, plan)
        await self.site.world.deliver_all()

    def at_stripe(self) -> dict[str, Any]:
        customers = self.site.world.simulator.world.where("customer")
        (customer,) = [one for one in customers if one.get("metadata", {}).get("org_id") == self.org]
        (found,) = self.site.world.simulator.world.where("subscription", customer=customer["id"])
        return found

    def price(self) -> str:
        return str(self.at_stripe()["items"]["data"][0]["price"]["id"])


@pytest.fixture
async def payer(site: PaymentsSite, org: str) -> Payer:
    """Pays for Starter."""
    new = Payer(site, org)
    await new.pays("starter")
    return new


async def test_a_higher_plan_begins_when_the_difference_is_paid(payer: Payer):
    changed = await payer.does("change", {"plan": "professional"})
    assert (changed["plan"], changed["status"]) == ("professional", "active")
    assert payer.price() == "price_professional"
    charged = control.charges_per_invoice(payer.site.world.simulator.world)[payer.at_stripe()["latest_invoice"]]
    assert charged == 1
    assert await payer.refused("change", {"plan": "professional"}) == (
        409,
        "The organization has Professional already.",
    )
    assert (await payer.standing())["status"] == "active"


@pytest.mark.parametrize(
    ("behaviour", "says"), [("generic_decline", "declined"), ("authentication_required", "bank asks")]
)
async def test_a_card_that_says_no_leaves_the_plan_as_it_is(payer: Payer, behaviour: str, says: str):
    await payer.site.world.card_of(payer.org, behaviour)
    status, detail = await payer.refused("change", {"plan": "enterprise"})
    assert status == 402
    assert says in detail
    assert "GET /api/billing/subscription" in detail
    standing = await payer.standing()
    assert (standing["plan"], standing["grace"]) == ("starter", None)
    assert standing["open_invoice"]["url"].startswith("http")
    await payer.site.world.deliver_all()
    assert (await payer.site.world.subscription(payer.org))["plan"] == "starter"
    # It is paid on the invoice's page after all.
    world = payer.site.world.simulator.world
    await payer.site.world.card_of(payer.org, "succeeds")
    control.pay_in_person(world, world.get("invoice", standing["open_invoice"]["invoice_id"]))
    await payer.site.world.deliver_all()
    assert (await payer.site.world.subscription(payer.org))["plan"] == "enterprise"


async def test_asked_again_with_a_better_card(payer: Payer):
    await payer.site.world.card_of(payer.org, "insufficient_funds")
    assert (await payer.refused("change", {"plan": "enterprise"}))[0] == 402
    await payer.site.world.card_of(payer.org, "succeeds")
    assert (await payer.does("change", {"plan": "enterprise"}))["plan"] == "enterprise"
    paid = [one for one in payer.site.world.simulator.world.where("invoice", status="paid")
            if one["customer"] == payer.at_stripe()["customer"]]  # fmt: skip
    assert len(paid) == 2


async def test_a_lower_plan_begins_at_once_with_a_credit(payer: Payer):
    await payer.does("change", {"plan": "enterprise"})
    before = payer.at_stripe()["latest_invoice"]
    assert (await payer.does("change", {"plan": "starter"}))["plan"] == "starter"
    assert payer.at_stripe()["latest_invoice"] == before
    waiting = payer.site.world.simulator.world.where("invoiceitem", customer=payer.at_stripe()["customer"])
    assert sum(one["amount"] for one in waiting if one["proration"] and one["invoice"] is None) < 0


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_a_change_at_the_end_of_the_period_and_back(payer: Payer, plan: str):
    later = await payer.does("change", {"plan": plan, "at_period_end": True})
    assert (later["plan"], later["pending"]["plan"]) == ("starter", None if plan == "free" else plan)
    standing = await payer.standing()
    assert standing["status"] == ("canceling" if plan == "free" else "changing")
    assert standing["next_plan"] == (None if plan == "free" else plan)
    assert later == await payer.does("change", {"plan": plan, "at_period_end": True})
    resumed = await payer.does("resume")
    assert (resumed["plan"], resumed["pending"], resumed["status"]) == ("starter", None, "active")
    assert payer.price() == "price_starter"
    assert (await payer.refused("resume"))[0] == 409


async def test_what_is_planned_comes_true_with_the_period(payer: Payer):
    await payer.does("change", {"plan": "enterprise", "at_period_end": True})
    await payer.site.world.live(timedelta(days=32), timedelta(days=4))
    assert (await payer.site.world.subscription(payer.org))["plan"] == "enterprise"
    (renewal,) = [one for one in payer.site.world.simulator.world.where("invoice", billing_reason="subscription_cycle")
                  if one["customer"] == payer.at_stripe()["customer"]]  # fmt: skip
    assert renewal["total"] == 99_900


async def test_another_choice_replaces_what_is_planned(payer: Payer):
    await payer.does("change", {"plan": "professional"})
    await payer.does("change", {"plan": "starter", "at_period_end": True})
    await payer.does("change", {"plan": "enterprise", "at_period_end": True})
    metadata = payer.at_stripe()["metadata"]
    assert (metadata["kept_plan"], metadata["kept_price"]) == ("professional", "price_professional")
    # What is paid for now counts, not the price that is set already.
    changed = await payer.does("change", {"plan": "enterprise"})
    assert (changed["plan"], changed["pending"]) == ("enterprise", None)
    assert "kept_plan" not in payer.at_stripe()["metadata"]
    world = payer.site.world.simulator.world
    difference = world.get("invoice", payer.at_stripe()["latest_invoice"])["total"]
    assert difference == 99_900 - 29_900


async def test_cancel_and_resume(payer: Payer):
    cancelled = await payer.does("cancel")
    assert (cancelled["status"], cancelled["plan"]) == ("canceling", "starter")
    assert cancelled == await payer.does("cancel")
    assert (await payer.does("change", {"plan": "starter"}))["status"] == "active"
    stripe_checkout.portal_cancel(payer.site.world.simulator.world, payer.at_stripe()["id"])
    await payer.site.world.deliver_all()
    assert (await payer.standing())["status"] == "canceling"
    assert (await payer.does("resume"))["status"] == "active"
    assert payer.at_stripe()["cancel_at"] is None
    ended = await payer.does("cancel", {"at_period_end": False})
    assert (ended["plan"], ended["status"]) == ("free", "active")
    assert payer.at_stripe()["status"] == "canceled"
    assert (await payer.refused("cancel"))[0] == 409
    assert (await payer.refused("change", {"plan": "starter"}))[0] == 402


async def test_who_owes_pays_first(payer: Payer):
    await payer.site.world.card_of(payer.org, "generic_decline")
    await payer.site.world.live(timedelta(days=32), timedelta(days=1))
    standing = await payer.standing()
    assert (standing["status"], standing["plan"]) == ("past_due", "starter")
    assert standing["grace"]["is_over"] is False
    assert "/api/billing/portal" in standing["next_step"]
    status, detail = await payer.refused("change", {"plan": "enterprise"})
    assert (status, "pay it first" in detail) == (409, True)
    method = await payer.site.read("GET", "/api/billing/payment-method", key=payer.key)
    assert method["status"] == "failed"
    assert (await payer.does("cancel", {"at_period_end": False}))["plan"] == "free"


async def test_refusals(payer: Payer):
    assert (await payer.ask("change", {"plan": "gold"})).status_code == 422
    member = token("bob", payer.org)
    assert (await payer.site.ask("POST", f"{payer.path}/cancel", key=member)).status_code == 403
    # An operator may not give what Stripe is paid for, but may change it.
    given = await payer.site.ask("PUT", payer.path, {"plan": "enterprise"})
    assert (given.status_code, "Stripe" in given.json()["detail"]) == (409, True)
    by_operator = await payer.site.read("POST", f"{payer.path}/change", {"plan": "professional"})
    assert by_operator["plan"] == "professional"


async def test_a_preview_is_what_is_charged(payer: Payer):
    body = {"plan": "professional"}
    seen = await payer.site.read("POST", "/api/billing/preview", body, key=payer.key)
    assert seen["amount_due_now"] == sum(line["amount"] for line in seen["now"]["lines"])
    assert all(line["is_proration"] for line in seen["now"]["lines"])
    assert seen["next"]["total"] == 299
    await payer.does("change", body)
    paid = payer.site.world.simulator.world.get("invoice", payer.at_stripe()["latest_invoice"])["amount_paid"]
    assert paid == round(seen["amount_due_now"] * 100)
    lower = await payer.site.read("POST", "/api/billing/preview", {"tier": "starter"}, key=payer.key)
    assert (lower["amount_due_now"], lower["now"]) == (0, None)
    assert lower["next"]["total"] < 99
    for wrong, status in (({"plan": "professional"}, 409), ({"plan": "free"}, 422), ({}, 422)):
        assert (await payer.site.ask("POST", "/api/billing/preview", wrong, key=payer.key)).status_code == status


TROUBLE = [
    Fault(path="/v1/subscriptions", method="POST", status=500, acts=True),
    Fault(path="/v1/subscriptions", method="POST", status=503),
    Fault(path="/v1/subscriptions", method="POST", drop=True, acts=True),
]


@pytest.mark.parametrize("fault", TROUBLE, ids=lambda fault: f"{fault.status}-{fault.acts}")
@pytest.mark.parametrize("who", ["worker", "owner"])
async def test_what_stripe_did_not_answer_is_charged_once(payer: Payer, fault: Fault, who: str):
    simulator = payer.site.world.simulator
    simulator.faults.ordered = [Fault(1, fault.method, fault.path, fault.status, 0, fault.drop, fault.acts)]
    assert (await payer.refused("change", {"plan": "professional"}))[0] == 503
    if who == "worker":
        await payer.site.world.advance(timedelta(minutes=2))
        await collecting.carry_out_intents(payer.site.world.payments, payer.site.world.now)
    else:
        assert (await payer.does("change", {"plan": "professional"}))["plan"] == "professional"
    assert (await payer.site.world.subscription(payer.org))["plan"] == "professional"
    paid = [one for one in simulator.world.where("invoice", status="paid", billing_reason="subscription_update")
            if one["customer"] == payer.at_stripe()["customer"]]  # fmt: skip
    assert len(paid) == 1


async def test_what_was_asked_before_is_not_done_after(payer: Payer):
    """The upgrade that Stripe did not answer comes before the cancellation that follows it, and not later."""
    payer.site.world.simulator.faults.ordered = [Fault(1, "POST", "/v1/subscriptions", 503)]
    assert (await payer.refused("change", {"plan": "enterprise"}))[0] == 503
    assert (await payer.does("change", {"plan": "starter"}))["plan"] == "starter"
    await payer.site.world.advance(timedelta(hours=1))
    await payer.site.world.settle()
    assert (await payer.site.world.subscription(payer.org))["plan"] == "starter"
