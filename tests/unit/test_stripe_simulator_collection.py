"""How the Stripe simulator collects: renewals, retries, what becomes of the subscription, and changes that wait."""

import pytest
from stripe_world import Stripe, day

from standalone.stripe_simulator import checkout, control, payments
from standalone.stripe_simulator.cards import card_named
from standalone.stripe_simulator.problems import StripeProblem


def failing(stripe: Stripe) -> dict:
    """A Starter subscription since April 1 whose card begins to fail."""
    subscription = stripe.subscribe(stripe.customer())
    control.behave(stripe.world, "insufficient_funds", customer=subscription["customer"])
    return subscription


def test_a_renewal_is_a_draft_for_an_hour():
    stripe = Stripe()
    subscription = stripe.subscribe(stripe.customer())
    stripe.until("2026-05-01T00:59")
    assert stripe.invoices(subscription)[-1]["status"] == "draft"
    assert stripe.now(subscription)["status"] == "active"
    stripe.until("2026-05-01T01:00")
    assert stripe.invoices(subscription)[-1]["status"] == "paid"


def test_a_failed_renewal_is_tried_again_on_days_3_5_and_7():
    stripe = Stripe(finalization_delay_seconds=0)
    subscription = failing(stripe)
    seen = len(stripe.world.events)
    stripe.until("2026-05-20")
    failures = [event for event in stripe.world.events[seen:] if event["type"] == "invoice.payment_failed"]
    assert [day(event["created"])[5:] for event in failures] == ["05-01", "05-04", "05-06", "05-08"]
    objects = [event["data"]["object"] for event in failures]
    assert [one["attempt_count"] for one in objects] == [1, 2, 3, 4]
    assert [one["next_payment_attempt"] and day(one["next_payment_attempt"])[5:] for one in objects] == [
        *("05-04", "05-06", "05-08"),
        None,
    ]
    assert stripe.now(subscription)["status"] == "past_due"
    assert stripe.get(f"/v1/customers/{subscription['customer']}")["delinquent"] is True


@pytest.mark.parametrize(
    ("rule", "status", "event"),
    [("canceled", "canceled", "customer.subscription.deleted"), ("unpaid", "unpaid", "customer.subscription.updated")],
)
def test_after_the_last_failure(rule: str, status: str, event: str):
    stripe = Stripe(after_last_failure=rule)
    subscription = failing(stripe)
    stripe.until("2026-05-20")
    ended = stripe.now(subscription)
    assert (ended["status"], stripe.types()[-1]) == (status, event)
    if rule == "canceled":
        assert ended["cancellation_details"]["reason"] == "payment_failed"
        assert stripe.invoices(subscription)[-1]["status"] == "open"
    else:
        stripe.until("2026-06-02")
        assert stripe.invoices(subscription)[-1]["status"] == "draft"


def test_a_card_that_works_again_recovers_at_the_next_attempt():
    stripe = Stripe()
    subscription = failing(stripe)
    stripe.until("2026-05-02")
    assert stripe.now(subscription)["status"] == "past_due"
    control.behave(stripe.world, "succeeds", customer=subscription["customer"])
    stripe.until("2026-05-05")
    assert stripe.now(subscription)["status"] == "active"
    assert stripe.get(f"/v1/customers/{subscription['customer']}")["delinquent"] is False
    assert set(control.charges_per_invoice(stripe.world).values()) == {1}


def test_an_invoice_paid_by_hand_recovers_at_once_and_does_not_move_the_schedule():
    stripe = Stripe()
    subscription = failing(stripe)
    stripe.until("2026-05-02")
    invoice = stripe.invoices(subscription)[-1]
    with pytest.raises(StripeProblem) as refused:
        stripe.post(f"/v1/invoices/{invoice['id']}/pay")
    assert (refused.value.status, refused.value.more["decline_code"]) == (402, "insufficient_funds")
    again = stripe.invoices(subscription)[-1]
    assert (again["attempt_count"], again["next_payment_attempt"]) == (1, invoice["next_payment_attempt"])
    card = stripe.post("/v1/payment_methods/pm_card_mastercard/attach", customer=subscription["customer"])
    paid = stripe.post(f"/v1/invoices/{invoice['id']}/pay", payment_method=card["id"])
    assert (paid["status"], paid["amount_paid"]) == ("paid", 2900)
    assert stripe.now(subscription)["status"] == "active"
    with pytest.raises(StripeProblem, match="already paid"):
        stripe.post(f"/v1/invoices/{invoice['id']}/pay")


def test_paid_outside_stripe_void_and_uncollectible():
    for path, params, status in (
        ("pay", {"paid_out_of_band": True}, "paid"),
        ("void", {}, "void"),
        ("mark_uncollectible", {}, "uncollectible"),
    ):
        stripe = Stripe()
        subscription = failing(stripe)
        stripe.until("2026-05-02")
        invoice = stripe.invoices(subscription)[-1]
        assert stripe.post(f"/v1/invoices/{invoice['id']}/{path}", **params)["status"] == status
        assert stripe.now(subscription)["status"] == "active"
        charges = len(stripe.get("/v1/charges", limit=100)["data"])
        stripe.until("2026-05-20")
        assert len(stripe.get("/v1/charges", limit=100)["data"]) == charges, "nobody is asked again"


def test_a_first_payment_that_fails_leaves_an_incomplete_subscription_for_23_hours():
    stripe = Stripe()
    subscription = stripe.subscribe(stripe.customer("pm_card_chargeCustomerFail"))
    assert subscription["status"] == "incomplete"
    with pytest.raises(StripeProblem, match="cannot be changed"):
        stripe.change(subscription, "price_pro")
    stripe.until("2026-04-01T22:59")
    assert stripe.now(subscription)["status"] == "incomplete"
    stripe.until("2026-04-01T23:00")
    assert stripe.now(subscription)["status"] == "incomplete_expired"
    assert [one["status"] for one in stripe.invoices(subscription)] == ["void"]


def test_an_error_if_incomplete_leaves_nothing_behind():
    stripe = Stripe()
    customer = stripe.customer("pm_card_chargeCustomerFail")
    with pytest.raises(StripeProblem) as refused:
        stripe.subscribe(customer, payment_behavior="error_if_incomplete")
    assert (refused.value.status, refused.value.code) == (402, "card_declined")
    assert stripe.get("/v1/subscriptions", status="all")["data"] == stripe.get("/v1/invoices")["data"] == []


def test_authentication_is_asked_for_and_given():
    stripe = Stripe()
    subscription = stripe.subscribe(stripe.customer("pm_card_authenticationRequired"))
    assert subscription["status"] == "incomplete"
    assert "invoice.payment_action_required" in stripe.types()
    control.pay_in_person(stripe.world, stripe.world.get("invoice", subscription["latest_invoice"]))
    assert stripe.now(subscription)["status"] == "active"


def test_a_change_that_is_not_paid_waits_and_is_made_when_it_is():
    stripe = Stripe()
    subscription = failing(stripe)
    stripe.until("2026-04-16")
    pending = {"payment_behavior": "pending_if_incomplete", "proration_behavior": "always_invoice"}
    waiting = stripe.change(subscription, "price_pro", **pending)
    assert waiting["items"]["data"][0]["price"]["id"] == "price_starter"
    assert waiting["pending_update"]["subscription_items"][0]["price"]["id"] == "price_pro"
    assert (waiting["status"], day(waiting["pending_update"]["expires_at"])) == ("active", "2026-04-16")
    noted = stripe.post(f"/v1/subscriptions/{subscription['id']}", metadata={"note": "it waits on"})
    assert noted["pending_update"] == waiting["pending_update"]
    card = stripe.post("/v1/payment_methods/pm_card_visa/attach", customer=subscription["customer"])
    stripe.post(f"/v1/invoices/{waiting['latest_invoice']}/pay", payment_method=card["id"])
    made = stripe.now(subscription)
    assert (made["items"]["data"][0]["price"]["id"], made["pending_update"]) == ("price_pro", None)
    assert "customer.subscription.pending_update_applied" in stripe.types()


def test_a_change_that_is_not_paid_in_time_is_forgotten():
    stripe = Stripe()
    subscription = failing(stripe)
    pending = {"payment_behavior": "pending_if_incomplete", "proration_behavior": "always_invoice"}
    waiting = stripe.change(subscription, "price_pro", **pending)
    stripe.until("2026-04-02")
    after = stripe.now(subscription)
    assert (after["items"]["data"][0]["price"]["id"], after["pending_update"]) == ("price_starter", None)
    assert stripe.get(f"/v1/invoices/{waiting['latest_invoice']}")["status"] == "void"
    assert "customer.subscription.pending_update_expired" in stripe.types()
    with pytest.raises(StripeProblem, match="`metadata` is not supported"):
        stripe.change(subscription, "price_pro", metadata={"a": "b"}, **pending)


def test_an_allowed_change_that_is_not_paid_makes_the_subscription_past_due():
    stripe = Stripe()
    subscription = failing(stripe)
    stripe.until("2026-04-16")
    changed = stripe.change(subscription, "price_pro", proration_behavior="always_invoice")
    assert (changed["items"]["data"][0]["price"]["id"], changed["status"]) == ("price_pro", "past_due")


def test_a_cancellation_at_the_end_of_the_period_and_its_two_spellings():
    stripe = Stripe()
    subscription = stripe.subscribe(stripe.customer())
    set_ = stripe.post(f"/v1/subscriptions/{subscription['id']}", cancel_at_period_end=True)
    assert (set_["cancel_at_period_end"], day(set_["cancel_at"]), set_["status"]) == (True, "2026-05-01", "active")
    kept = stripe.post(f"/v1/subscriptions/{subscription['id']}", cancel_at_period_end=False)
    assert (kept["cancel_at_period_end"], kept["cancel_at"], kept["canceled_at"]) == (False, None, None)
    by_portal = checkout.portal_cancel(stripe.world, subscription["id"])
    assert (by_portal["cancel_at_period_end"], day(by_portal["cancel_at"])) == (False, "2026-05-01")
    stripe.until("2026-05-01")
    ended = stripe.now(subscription)
    assert (ended["status"], stripe.types()[-1]) == ("canceled", "customer.subscription.deleted")
    assert len(stripe.invoices(subscription)) == 1


def test_a_trial_is_free_and_then_renews():
    stripe = Stripe()
    subscription = stripe.subscribe(stripe.customer(), trial_period_days=14)
    assert (subscription["status"], stripe.invoices(subscription)[0]["total"]) == ("trialing", 0)
    stripe.until("2026-04-12")
    assert stripe.types()[-1] == "customer.subscription.trial_will_end"
    stripe.until("2026-04-15T02:00")
    assert (stripe.now(subscription)["status"], stripe.invoices(subscription)[-1]["total"]) == ("active", 2900)


def test_sums_too_small_to_charge_are_carried_over():
    stripe = Stripe()
    customer = stripe.customer()
    stripe.post("/v1/invoiceitems", customer=customer, amount=49, currency="usd")
    draft = stripe.post("/v1/invoices", customer=customer, pending_invoice_items_behavior="include", auto_advance=True)
    small = stripe.post(f"/v1/invoices/{draft['id']}/finalize")
    assert (small["status"], small["amount_due"], small["ending_balance"]) == ("paid", 0, 49)
    subscription = stripe.subscribe(customer)
    assert stripe.invoices(subscription)[0]["amount_due"] == 2949


def test_items_wait_for_the_next_renewal_and_are_rounded_once():
    stripe = Stripe()
    subscription = stripe.subscribe(stripe.customer())
    item = {"customer": subscription["customer"], "subscription": subscription["id"], "currency": "usd"}
    stripe.post("/v1/invoiceitems", unit_amount_decimal="0.35", quantity=1230, description="Overage", **item)
    stripe.until("2026-05-01T02:00")
    made = stripe.invoices(subscription)[-1]
    assert [(line["amount"], line["parent"]["type"]) for line in made["lines"]["data"]] == [
        (431, "invoice_item_details"),  # 430.5 cents
        (2900, "subscription_item_details"),
    ]


def test_refunds_and_disputes():
    stripe = Stripe()
    stripe.subscribe(stripe.customer())
    (charge,) = stripe.get("/v1/charges")["data"]
    stripe.post("/v1/refunds", charge=charge["id"], amount=900)
    assert stripe.get(f"/v1/charges/{charge['id']}")["amount_refunded"] == 900
    with pytest.raises(StripeProblem, match=r"greater than unrefunded amount on charge \(\$20.00\)"):
        stripe.post("/v1/refunds", charge=charge["id"], amount=2001)
    dispute = payments.open_dispute(stripe.world, charge["id"])
    with pytest.raises(StripeProblem, match="charged back"):
        stripe.post("/v1/refunds", charge=charge["id"])
    payments.close_dispute(stripe.world, dispute["id"], "won")
    assert stripe.types()[-4:] == [
        *("charge.dispute.created", "charge.dispute.funds_withdrawn"),
        *("charge.dispute.closed", "charge.dispute.funds_reinstated"),
    ]


def test_a_test_clock_moves_its_own_customers_only():
    stripe = Stripe()
    clock = stripe.post("/v1/test_helpers/test_clocks", frozen_time=stripe.world.time_of())
    mine = stripe.subscribe(stripe.customer(test_clock=clock["id"]))
    other = stripe.subscribe(stripe.customer())
    later = stripe.world.time_of() + 40 * 86_400
    moved = stripe.post(f"/v1/test_helpers/test_clocks/{clock['id']}/advance", frozen_time=later)
    assert (moved["status"], moved["frozen_time"]) == ("ready", later)
    assert (len(stripe.invoices(mine)), len(stripe.invoices(other))) == (2, 1)


def test_the_same_steps_leave_the_same_world():
    def lived() -> list:
        stripe = Stripe()
        failing(stripe)
        checkout.portal_card(stripe.world, next(iter(stripe.world.table("customer"))), card_named("pm_card_visa"))
        stripe.until("2027-04-01")
        return stripe.world.events

    assert lived() == lived()
