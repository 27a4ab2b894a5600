"""Periods and prorations of the Stripe simulator against figures worked out by hand."""

import pytest
from stripe_world import Stripe, at, day

from standalone.stripe_simulator.clock import boundary, period_after
from standalone.stripe_simulator.problems import StripeProblem


@pytest.mark.parametrize(
    ("anchor", "ends"),
    [
        ("2026-01-31", ["2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]),
        ("2028-01-31", ["2028-02-29", "2028-03-31", "2028-04-30"]),
        ("2026-01-30", ["2026-02-28", "2026-03-30"]),
        ("2026-12-15", ["2027-01-15", "2027-02-15"]),
    ],
)
def test_a_month_end_keeps_its_day_where_the_month_has_it(anchor: str, ends: list[str]):
    assert [day(boundary(at(anchor), "month", count)) for count in range(1, len(ends) + 1)] == ends
    for begin, end in zip([anchor, *ends], ends, strict=False):
        assert day(period_after(at(begin), at(anchor), "month", 1)) == end


def test_other_intervals():
    assert day(boundary(at("2028-02-29"), "year", 1)) == "2029-02-28"
    assert day(boundary(at("2026-02-28"), "week", 2)) == "2026-03-14"
    assert day(period_after(at("2026-08-31"), at("2026-01-31"), "month", 3)) == "2026-10-31"


def test_a_year_that_began_on_the_31st():
    stripe = Stripe("2026-01-31")
    subscription = stripe.subscribe(stripe.customer())
    stripe.until("2027-02-01")
    invoices = stripe.invoices(subscription)
    assert [day(one["created"]) for one in invoices] == [
        *("2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31", "2026-06-30", "2026-07-31"),
        *("2026-08-31", "2026-09-30", "2026-10-31", "2026-11-30", "2026-12-31", "2027-01-31"),
    ]
    assert {one["status"] for one in invoices} == {"paid"}
    assert [one["number"][-4:] for one in invoices] == [f"{number:04}" for number in range(1, 14)]
    assert {one["total"] for one in invoices} == {2900}


def lines(invoice: dict) -> list[tuple[int, str]]:
    return [(line["amount"], line["description"]) for line in invoice["lines"]["data"]]


def test_an_upgrade_in_the_middle_of_april_pays_half_of_the_difference():
    # April has 30 days; 15 are left: -29.00/2 and +99.00/2.
    stripe = Stripe("2026-04-01")
    subscription = stripe.subscribe(stripe.customer())
    stripe.until("2026-04-16")
    changed = stripe.change(subscription, "price_pro", proration_behavior="always_invoice")
    first, second = stripe.invoices(subscription)
    assert lines(second) == [
        (-1450, "Unused time on Starter after 16 Apr 2026"),
        (4950, "Remaining time on Pro after 16 Apr 2026"),
    ]
    assert (second["total"], second["status"], second["billing_reason"]) == (3500, "paid", "subscription_update")
    assert changed["latest_invoice"] == second["id"] != first["id"]
    parent = second["lines"]["data"][0]["parent"]["subscription_item_details"]
    assert (parent["proration"], parent["subscription"]) == (True, subscription["id"])
    stripe.until("2026-05-01T02:00")
    assert lines(stripe.invoices(subscription)[-1]) == [(9900, "1 × Pro (at $99.00 / month)")]  # noqa: RUF001


def test_a_second_change_gives_back_what_was_billed_not_the_list_price():
    stripe = Stripe("2026-04-01")
    subscription = stripe.subscribe(stripe.customer())
    stripe.until("2026-04-16")
    stripe.change(subscription, "price_pro", proration_behavior="always_invoice")
    stripe.until("2026-04-26")  # 5 days of the 15 that cost 49.50 are left, and 5 of April's 30 for Starter
    stripe.change(subscription, "price_starter", proration_behavior="create_prorations")
    waiting = stripe.get("/v1/invoiceitems", pending=True)["data"]
    assert sorted(item["amount"] for item in waiting) == [-1650, 483]  # 29.00 / 6 = 4.8333
    stripe.until("2026-05-01T02:00")
    assert [amount for amount, _ in lines(stripe.invoices(subscription)[-1])] == [-1650, 483, 2900]
    assert stripe.get("/v1/invoiceitems", pending=True)["data"] == []


def test_a_change_without_prorations_is_billed_at_the_next_renewal_only():
    stripe = Stripe("2026-04-01")
    subscription = stripe.subscribe(stripe.customer())
    stripe.until("2026-04-16")
    stripe.change(subscription, "price_pro", proration_behavior="none")
    assert len(stripe.invoices(subscription)) == 1
    # Nothing was billed for Pro, so a change back gives back Starter's half month and charges it again.
    stripe.change(subscription, "price_starter", proration_behavior="always_invoice")
    assert lines(stripe.invoices(subscription)[-1])[0][0] == -1450


def test_a_downgrade_becomes_credit_that_the_next_invoice_uses():
    stripe = Stripe("2026-04-01")
    customer = stripe.customer()
    subscription = stripe.subscribe(customer, "price_pro")
    stripe.until("2026-04-16")
    stripe.change(subscription, "price_starter", proration_behavior="always_invoice")
    negative = stripe.invoices(subscription)[-1]
    assert (negative["total"], negative["amount_due"], negative["status"]) == (-3500, 0, "paid")
    assert (negative["starting_balance"], negative["ending_balance"]) == (0, -3500)
    assert stripe.get(f"/v1/customers/{customer}")["balance"] == -3500
    stripe.until("2026-06-01T02:00")
    may, june = stripe.invoices(subscription)[-2:]
    assert (may["total"], may["amount_due"], may["ending_balance"]) == (2900, 0, -600)
    assert (june["total"], june["amount_due"], june["ending_balance"]) == (2900, 2300, 0)
    entries = stripe.get(f"/v1/customers/{customer}/balance_transactions")["data"]
    assert [(one["amount"], one["ending_balance"]) for one in entries] == [(600, 0), (2900, -600), (-3500, -3500)]


def test_proration_goes_by_the_second_and_from_the_date_that_is_given():
    stripe = Stripe("2026-04-01")
    subscription = stripe.subscribe(stripe.customer())
    stripe.until("2026-04-16")
    date = at("2026-04-11T12:00")  # 19.5 of 30 days are left: 18.85 and 64.35
    stripe.change(subscription, "price_pro", proration_behavior="always_invoice", proration_date=date)
    assert [amount for amount, _ in lines(stripe.invoices(subscription)[-1])] == [-1885, 6435]
    with pytest.raises(StripeProblem, match="proration_date outside"):
        stripe.change(subscription, "price_starter", proration_date=at("2026-03-01"))


def test_another_interval_begins_a_new_period_and_is_billed_at_once():
    stripe = Stripe("2026-04-01")
    yearly = stripe.post(
        "/v1/prices",
        product_data={"name": "Pro, yearly"},
        unit_amount=99000,
        currency="usd",
        recurring={"interval": "year"},
    )
    subscription = stripe.subscribe(stripe.customer())
    stripe.until("2026-04-16")
    changed = stripe.change(subscription, yearly["id"])
    assert [amount for amount, _ in lines(stripe.invoices(subscription)[-1])] == [-1450, 99000]
    assert day(changed["items"]["data"][0]["current_period_end"]) == "2027-04-16"
    assert day(changed["billing_cycle_anchor"]) == "2026-04-16"


def test_a_preview_says_what_the_change_then_costs_and_keeps_nothing():
    stripe = Stripe("2026-04-01")
    subscription = stripe.subscribe(stripe.customer())
    stripe.until("2026-04-16")
    item = subscription["items"]["data"][0]["id"]
    events = len(stripe.world.events)
    details = {"items": [{"id": item, "price": "price_pro"}], "proration_behavior": "always_invoice"}
    preview = stripe.post("/v1/invoices/create_preview", subscription=subscription["id"], subscription_details=details)
    assert (preview["total"], preview["amount_due"], len(stripe.world.events)) == (3500, 3500, events)
    details["proration_behavior"] = "create_prorations"
    preview = stripe.post("/v1/invoices/create_preview", subscription=subscription["id"], subscription_details=details)
    assert [amount for amount, _ in lines(preview)] == [-1450, 4950, 9900]
    upcoming = stripe.post("/v1/invoices/create_preview", subscription=subscription["id"])
    assert [amount for amount, _ in lines(upcoming)] == [2900]
    gone = {"cancel_now": True, "proration_behavior": "always_invoice"}
    preview = stripe.post("/v1/invoices/create_preview", subscription=subscription["id"], subscription_details=gone)
    assert (preview["total"], preview["ending_balance"]) == (-1450, -1450)


def test_cancelling_now_can_give_back_the_rest():
    stripe = Stripe("2026-04-01")
    customer = stripe.customer()
    subscription = stripe.subscribe(customer)
    stripe.until("2026-04-16")
    ended = stripe.delete(f"/v1/subscriptions/{subscription['id']}", prorate=True, invoice_now=True)
    assert (ended["status"], day(ended["ended_at"])) == ("canceled", "2026-04-16")
    assert stripe.get(f"/v1/customers/{customer}")["balance"] == -1450
    stripe.until("2026-07-01")
    assert len(stripe.invoices(subscription)) == 2
