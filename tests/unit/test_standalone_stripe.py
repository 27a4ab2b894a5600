import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from stripe_world import day

from billing.settings import Settings as BillingSettings
from standalone import credentials, stripe_settings
from standalone.datadir import Running
from standalone.gateway import with_prices
from standalone.problems import CatalogUnusable, DataDirUnusable, StripeIsSet
from standalone.service_settings import environment
from standalone.stripe_simulator import cards, checkout
from standalone.stripe_simulator.calls import call
from standalone.stripe_simulator.state import Simulator
from standalone.stripe_stand_in import FILE_NAME, open_simulator, write

PRICES = {
    f"STRIPE_PRICE_{plan.upper()}": f"price_simulated_{plan}" for plan in ("starter", "professional", "enterprise")
}


@pytest.fixture(autouse=True)
def running(monkeypatch: pytest.MonkeyPatch) -> Running:
    """What runs, where nobody has set anything about Stripe."""
    for name in ("ARAGORA_CATALOG", *stripe_settings.NAMES, *PRICES):
        monkeypatch.delenv(name, raising=False)
    stripe = stripe_settings.of_stand_in(9)
    return Running(7, "127.0.0.1", port=8000, postgres_port=1, nats_port=2, monitoring_port=3, stripe=stripe)


def opened(data_dir: Path, running: Running) -> Simulator:
    return open_simulator(data_dir, running, httpx.AsyncClient())


def check_out(simulator: Simulator, key: str) -> dict[str, Any]:
    params = {
        "mode": "subscription",
        "customer_email": "fern@example.com",
        "line_items": {"0": {"price": "price_simulated_professional", "quantity": "1"}},
        "success_url": "https://example.com",
    }
    answer = simulator.calls.answer("POST", "/v1/checkout/sessions", params, key)
    assert answer.status == 200, answer.body
    return answer.body


def test_billing_alone_is_told_of_the_stand_in(tmp_path: Path, running: Running) -> None:
    assert (running.stripe_url, running.stripe_port) == ("http://127.0.0.1:9", 9)
    secrets = credentials.read_or_make(tmp_path)
    told = BillingSettings.model_validate(with_prices(environment(secrets, running, "billing")))
    assert (told.stripe_api_base, told.stripe_prices) == ("http://127.0.0.1:9", PRICES)
    assert told.stripe_secret_key.startswith("sk_test_")
    assert told.stripe_webhook_secret.startswith("whsec_")
    for service in ("auth", "metering", "notifier"):
        # Empty, rather than absent: a child inherits what is absent.
        given = environment(secrets, running, service)
        assert {name: value for name, value in given.items() if name.startswith("STRIPE_")} == dict.fromkeys(
            stripe_settings.SECRETS, ""
        )
    without = environment(secrets, replace(running, stripe={}), "billing")
    assert not [name for name in without if name.startswith("STRIPE_")]


def test_what_the_operator_set_reaches_billing(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_live_of_the_operator")
    monkeypatch.setenv("STRIPE_PRICE_STARTER", "price_of_the_operator")
    with pytest.raises(StripeIsSet, match=r"\(STRIPE_SECRET_KEY, STRIPE_PRICE_STARTER\)"):
        stripe_settings.demand_unset()
    secrets = credentials.read_or_make(tmp_path)
    told = BillingSettings.model_validate(with_prices(environment(secrets, replace(running, stripe={}), "billing")))
    assert told.stripe_secret_key == "sk_live_of_the_operator"
    assert told.stripe_prices == {"STRIPE_PRICE_STARTER": "price_of_the_operator"}


def test_a_catalog_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    stripe_settings.demand_unset()
    monkeypatch.setenv("ARAGORA_CATALOG", "/nowhere/mine.toml")
    with pytest.raises(CatalogUnusable, match=r"/nowhere/mine\.toml"):
        stripe_settings.of_stand_in(9)


async def test_after_a_restart_the_stand_in_knows_what_it_knew(tmp_path: Path, running: Running) -> None:
    first = opened(tmp_path, running)
    session = check_out(first, "once")
    paid = checkout.complete(first.world, session["id"], cards.card_named("pm_card_visa"))
    open_one = check_out(first, "twice")
    assert first.deliveries.waiting
    write(tmp_path / FILE_NAME, first)
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600

    second = opened(tmp_path, replace(running, port=9000))
    assert check_out(second, "once")["id"] == session["id"], "an idempotency key is remembered"
    assert second.world.tables["customer"] == first.world.tables["customer"]
    assert [one.event["id"] for one in second.deliveries.waiting] == [
        one.event["id"] for one in first.deliveries.waiting
    ]
    (endpoint,) = second.world.table("webhook_endpoint").values()
    assert endpoint["url"] == "http://127.0.0.1:9000/api/webhooks/stripe"
    # What is due later comes to pass: the renewal, and the end of the session that nobody paid.
    ends = second.world.get("subscription", paid["subscription"])["items"]["data"][0]["current_period_end"]
    second.world.advance(ends + 2 * 3_600)
    invoices = call(second.world, "GET", "/v1/invoices", {"subscription": paid["subscription"]})["data"]
    assert [(one["status"], one["total"]) for one in invoices] == [("paid", 29_900)] * 2
    assert second.world.get("checkout.session", open_one["id"])["status"] == "expired"
    # Its clock goes on from where it was set.
    write(tmp_path / FILE_NAME, second)
    third = opened(tmp_path, running)
    assert day(third.world.time_of()) == day(second.world.time_of()) > day(int(datetime.now(UTC).timestamp()))


async def test_prices_are_those_of_the_catalog_of_today(tmp_path: Path, running: Running) -> None:
    first = opened(tmp_path, running)
    first.world.get("price", "price_simulated_starter")["unit_amount"] = 1
    write(tmp_path / FILE_NAME, first)
    again = opened(tmp_path, running)
    assert {one: again.world.get("price", one)["unit_amount"] for one in PRICES.values()} == {
        "price_simulated_starter": 9_900,
        "price_simulated_professional": 29_900,
        "price_simulated_enterprise": 99_900,
    }
    assert len(again.world.table("webhook_endpoint")) == 1


async def test_a_memory_that_cannot_be_read_is_said(tmp_path: Path, running: Running) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"something else")
    with pytest.raises(DataDirUnusable, match=r"stripe_simulator\.pickle cannot be read .* Begin anew"):
        opened(tmp_path, running)
