"""Billing's real processes, killed with SIGKILL in the middle of a request to Stripe, and started again.

The simulator holds the request: it has done what was asked, or not even begun, when the process is killed.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest
from billing_platform import worker_process
from one_service import ALL_SCOPES, Surroundings, bearer, checked, surroundings, token
from paying_world import CANCEL, PRICES, SUCCESS, price_id
from servers import PostgresServer, eventually

from aragora.chassis.sql import Pool
from standalone.platform import answers
from standalone.service import PythonService
from standalone.stripe_simulator import cards, catalogue
from standalone.stripe_simulator import checkout as stripe_checkout
from standalone.stripe_simulator.faults import Fault
from standalone.stripe_simulator.simulator import RunningSimulator, running_simulator

HELD_SECONDS = 600
"""Longer than any test: who waits for this answer is killed before it comes."""


@dataclass
class Site:
    """An API process and a worker process, beside a simulator in real time whose webhooks they hear."""

    around: Surroundings
    simulator: RunningSimulator
    api: PythonService
    worker: PythonService
    pool: Pool

    async def ask(self, method: str, path: str, body: Any, key: str = ALL_SCOPES) -> httpx.Response:
        return checked(await self.around.client.request(method, path, json=body, headers=bearer(key)))

    async def is_killed(self, process: PythonService) -> None:
        """Wait until Stripe holds the request that was ordered to be held; kill the process, and start it again."""
        await eventually(lambda: not self.simulator.faults.ordered, 20, what="a request to hold")
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        await process.start()

    async def a_minute_later(self) -> None:
        """What the dead had begun counts as abandoned now."""
        for table in ("stripe_intents", "stripe_events"):
            await self.pool.execute(f"UPDATE {table} SET next_attempt_at = now() WHERE state = 'pending'")

    def hold(self, method: str, path: str, *, acts: bool) -> None:
        fault = Fault(method=method, path=path, seconds=HELD_SECONDS, drop=True, acts=acts)
        self.simulator.faults.ordered.append(fault)


@pytest.fixture
async def site(postgres_server: PostgresServer, billing_template: str, nats_server: str) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        around = await stack.enter_async_context(surroundings(postgres_server, billing_template, nats_server))
        hooks = f"{around.url}/api/webhooks/stripe"
        simulator = await stack.enter_async_context(running_simulator(webhook_url=hooks))
        for plan, cents in PRICES.items():
            catalogue.put_price(simulator.world, price_id(plan), plan.title(), cents)
        settings = around.settings | {
            "STRIPE_SECRET_KEY": simulator.secret_key,
            "STRIPE_WEBHOOK_SECRET": simulator.webhook_secret,
            "STRIPE_API_BASE": simulator.url,
            **{f"STRIPE_PRICE_{plan.upper()}": price_id(plan) for plan in PRICES},
        }
        ready = f"{around.url}/readyz"
        api = PythonService("billing-api", around.folder, ["billing", "api"], settings, lambda: answers(ready))
        worker = worker_process("billing-worker", around.folder, settings)
        await around.start(worker, api)
        pool = await stack.enter_async_context(
            asyncpg.create_pool(around.settings["DATABASE_URL"], min_size=0, max_size=2)
        )
        yield Site(around, simulator, api, worker, pool)


WANTED = {"plan": "professional", "success_url": SUCCESS, "cancel_url": CANCEL}


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_killed_at_checkout_and_while_following(site: Site, org: str):
    stripe, owner = site.simulator.world, token("user_owner", org, "owner")
    assert (await site.ask("PUT", account_of(org), {"plan": "free"})).status_code == 200
    site.hold("POST", "/v1/checkout/sessions", acts=True)
    await ask_in_vain(site, "/api/billing/checkout", WANTED, owner)
    opened = (await site.ask("POST", "/api/billing/checkout", WANTED, owner)).json()["data"]
    assert [one["id"] for one in stripe.where("checkout.session", status="open")] == [opened["session_id"]]
    site.hold("GET", "/v1/subscriptions", acts=False)
    stripe_checkout.complete(stripe, opened["session_id"], cards.card_named("pm_card_visa"))
    await site.is_killed(site.worker)
    await site.a_minute_later()
    await eventually(lambda: has_plan(site, org, "professional"), 20)
    await assert_paid_once(site, org, 29_900)


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_killed_at_an_upgrade_and_with_a_credit(site: Site, org: str):
    stripe, owner = site.simulator.world, token("user_owner", org, "owner")
    assert (await site.ask("PUT", account_of(org), {"plan": "free"})).status_code == 200
    opened = (await site.ask("POST", "/api/billing/checkout", WANTED, owner)).json()["data"]
    stripe_checkout.complete(stripe, opened["session_id"], cards.card_named("pm_card_visa"))
    await eventually(lambda: has_plan(site, org, "professional"), 20)
    site.hold("POST", "/v1/subscriptions/", acts=True)
    await ask_in_vain(site, f"{account_of(org)}/change", {"plan": "enterprise"}, owner)
    assert (await site.ask("POST", f"{account_of(org)}/change", {"plan": "enterprise"}, owner)).status_code == 200
    assert await has_plan(site, org, "enterprise")
    site.hold("POST", "/v1/customers/", acts=True)
    granted = {"amount_usd": "150.00", "reason": "for your trouble", "reference": "ticket-1"}
    assert (await site.ask("POST", f"/api/billing/organizations/{org}/credits", granted)).status_code == 201
    await site.is_killed(site.worker)
    await site.a_minute_later()
    (upgrade,) = stripe.where("invoice", billing_reason="subscription_update")
    await assert_paid_once(site, org, 29_900, upgrade["total"])
    assert [one["amount"] for one in stripe.table("customer_balance_transaction").values()] == [-15_000]


def account_of(org: str) -> str:
    return f"/api/subscription/organizations/{org}/subscription"


async def assert_paid_once(site: Site, org: str, *amounts: int) -> None:
    """One customer, one subscription, each invoice charged once, nothing pending, and billing says what Stripe says."""
    await eventually(lambda: nothing_pends(site), 20)
    stripe = site.simulator.world
    (customer,) = stripe.table("customer").values()
    assert customer["metadata"] == {"org_id": org}
    assert [one["amount"] for one in stripe.table("charge").values() if one["paid"]] == [*amounts]
    assert len(stripe.table("invoice")) == len(amounts)
    (subscription,) = stripe.table("subscription").values()
    (row,) = await site.pool.fetch("SELECT subscription_id, status, price_id FROM stripe_subscriptions")
    assert tuple(row) == (subscription["id"], "active", subscription["items"]["data"][0]["price"]["id"])


async def ask_in_vain(site: Site, path: str, body: Any, key: str) -> None:
    """A request at which the API is killed."""
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(unanswered(site.around.client, path, body, key))
        await site.is_killed(site.api)
    assert asking.result()


async def unanswered(client: httpx.AsyncClient, path: str, body: Any, key: str) -> bool:
    try:
        await client.post(path, json=body, headers=bearer(key))
    except httpx.TransportError:
        return True
    return False


async def has_plan(site: Site, org: str, plan: str) -> bool:
    found: str = await site.pool.fetchval("SELECT plan FROM subscriptions WHERE org_id = $1", org)
    return found == plan


async def nothing_pends(site: Site) -> bool:
    left = await site.pool.fetchval(
        "SELECT (SELECT count(*) FROM stripe_intents WHERE state = 'pending') "
        "+ (SELECT count(*) FROM stripe_events WHERE state = 'pending')"
    )
    return bool(left == 0)
