"""The story of one organization: it signs up, uses up its plan, buys a larger one, its card fails, it pays after all.

Its owner goes the way that people go: over the platform's API, and over the pages that it names. Those are of Stripe's
stand-in, which is told what else would take a month. What happens is in letters, and in messages to a program of the
organization's. Each telling is of a new organization.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import httpx

from aragora.contracts.ids import new_id
from standalone.demo_notices import PATIENCE_SECONDS, POLL_SECONDS, Notices
from standalone.demo_receiver import Receiver

NAME = "Fern's Bakery"

Say = Callable[[str], None]


class NotAsItShould(Exception):
    """The platform, or the stand-in, answers what does not belong to the story."""


@dataclass
class Owner:
    """Somebody who decides for an organization, at a keyboard."""

    api: httpx.AsyncClient
    user_id: str = ""

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """The `data` of a good answer, if it has some; a new organization is unknown to billing for a moment."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                answer = await self.api.request(method, path, json=body)
                if answer.is_success:
                    return answer.json().get("data")
                if answer.status_code != HTTPStatus.NOT_FOUND:
                    raise NotAsItShould(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
                await asyncio.sleep(POLL_SECONDS)

    async def sees(self, is_so: Callable[[Any], bool]) -> tuple[Any, float]:
        """How the organization stands, once it is so, and how many seconds that took."""
        began_at = time.monotonic()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                standing = await self.ask("GET", "/api/billing/subscription")
                if is_so(standing):
                    return standing, time.monotonic() - began_at
                await asyncio.sleep(POLL_SECONDS)


@dataclass
class StandIn:
    """Stripe's stand-in: its API, and its pages as a browser sends their forms."""

    http: httpx.AsyncClient

    async def ask(self, method: str, path: str, **form: str) -> Any:
        """What Stripe's API answers."""
        answer = await self.http.request(method, path, data=form)
        if not answer.is_success:
            raise NotAsItShould(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json()

    async def pay(self, page: str, card: str) -> None:
        """Choose a card on the page, and press its button."""
        answer = await self.http.post(page, data={"press": "pay", "card": card})
        if answer.is_error:
            raise NotAsItShould(f"{page} answers {answer.status_code}")


async def tell(url: str, service_key: str, mailbox_url: str, stripe: Mapping[str, str], say: Say) -> None:
    """Let it happen, and say each thing when it has happened.

    Args:
        url: the platform's API.
        service_key: with which the product that the bakery uses reports what it used.
        mailbox_url: where this machine's letters are read; empty if they go elsewhere.
        stripe: what billing is told of the stand-in; without one there is no story.
        say: gets a sentence.
    """
    if not stripe:
        say("No stand-in for Stripe runs here, so nobody pays: see `aragora up --simulate-stripe`.")
        return
    key = {"Authorization": f"Bearer {stripe['STRIPE_SECRET_KEY']}"}
    try:
        async with (
            httpx.AsyncClient(base_url=url, timeout=10) as api,
            httpx.AsyncClient(base_url=stripe["STRIPE_API_BASE"], headers=key, timeout=10) as http,
            httpx.AsyncClient(timeout=10) as browser,
            Receiver() as receiver,
        ):
            notices = Notices(browser, mailbox_url, receiver)
            owner, stand_in = await _sign_up(api, notices, say), StandIn(http)
            await _listen(owner, receiver, say)
            await _use(owner, service_key, notices, say)
            plan = await _to_buy(owner)
            if plan is None:
                say("The catalog has no plan that costs something, so nobody pays.")
                return
            session = await _buy(owner, stand_in, plan, say)
            await _fail(owner, stand_in, session, notices, say)
            await _recover(owner, stand_in, notices, say)
    except (NotAsItShould, httpx.TransportError, TimeoutError) as trouble:
        say(f"{NAME}: the story ends here. {trouble!s} ({type(trouble).__name__})")


async def _sign_up(api: httpx.AsyncClient, notices: Notices, say: Say) -> Owner:
    person = {
        "email": f"fern-{secrets.token_hex(6)}@example.com",
        "password": secrets.token_urlsafe(18),
        "name": "Fern",
        "organization": NAME,
    }
    owner, notices.email = Owner(api), person["email"]
    made = await owner.ask("POST", "/api/auth/register", person)
    began_at = time.monotonic()
    owner.user_id, api.headers["Authorization"] = made["user"]["user_id"], f"Bearer {made['access_token']}"
    plan = (await owner.sees(lambda _: True))[0]["plan_name"]
    if notices.mailbox_url:
        token = await notices.secret_in("Verify your e-mail address")
        seconds = time.monotonic() - began_at
        await owner.ask("POST", "/api/auth/verify-email", {"token": token})
        say(f"{NAME} has signed up. Its plan is {plan}. A letter came after {seconds:.1f} s, and verified the address.")
    else:
        say(f"{NAME} has signed up. Its plan is {plan}.")
    return owner


async def _listen(owner: Owner, receiver: Receiver, say: Say) -> None:
    """A program of the bakery's is told, too, where webhooks may go to this machine."""
    wanted = {"url": receiver.url, "description": "The till"}
    answer = await owner.api.post("/api/notifications/endpoints", json=wanted)
    if answer.is_success:
        receiver.secret = answer.json()["data"]["secret"]
    else:
        say("Its own program is told nothing: ARAGORA_WEBHOOK_ALLOWED_NETWORKS lets no webhook go to this machine.")


async def _use(owner: Owner, service_key: str, notices: Notices, say: Say) -> None:
    """The bakery holds most of the debates of its plan; if that has no number of them, there is nothing to tell."""
    standing, _ = await owner.sees(lambda _: True)
    limits = (await owner.ask("GET", f"/api/subscription/dashboard/{owner.user_id}"))["limits"]["limits"]
    debates = limits.get("debates")
    if not debates or debates > 100:
        return
    used = -(-debates * 8 // 10)
    events = [
        {
            "id": str(new_id()), "org_id": standing["org_id"], "event_type": "debate", "provider": "anthropic",
            "model": "claude-sonnet-4", "tokens_in": 1_500, "tokens_out": 800,
            "occurred_at": datetime.now(UTC).isoformat(),
        }
        for _ in range(used)
    ]  # fmt: skip
    since = time.monotonic()
    answer = await owner.api.post("/api/usage/events", json=events, headers={"Authorization": f"Bearer {service_key}"})
    if not answer.is_success:
        raise NotAsItShould(answer.text[:300])
    told = await notices.of("80 % of the limit", "limit.reached", since)
    say(f"It holds {used} of its {debates} debates.{told}")


async def _to_buy(owner: Owner) -> Any:
    """The plan in the middle of those that cost something."""
    plans = await owner.ask("GET", "/api/subscription/plans")
    paid = [plan for plan in plans if plan["price_monthly"] > 0]
    return paid[len(paid) // 2] if paid else None


async def _buy(owner: Owner, stand_in: StandIn, plan: Any, say: Say) -> str:
    wanted = {"plan": plan["id"], "success_url": "https://example.com/paid", "cancel_url": "https://example.com/back"}
    checkout = await owner.ask("POST", "/api/billing/checkout", wanted)
    say(f"It wants {plan['name']}: ${plan['price_monthly']:,.2f} a month, to be paid on a page of Stripe's stand-in.")
    await stand_in.pay(checkout["url"], "pm_card_visa")
    _, seconds = await owner.sees(lambda now: now["plan"] == plan["id"])
    say(f"It has paid, and {plan['name']} was its plan {seconds:.1f} s later.")
    session: str = checkout["session_id"]
    return session


async def _fail(owner: Owner, stand_in: StandIn, session: str, notices: Notices, say: Say) -> None:
    """The bakery's card is refused from now on, and it is sent an invoice for something beside its plan."""
    sold = await stand_in.ask("GET", f"/v1/checkout/sessions/{session}")
    refused = await stand_in.http.post(
        "/simulator/cards", json={"customer": sold["customer"], "behaviour": "insufficient_funds"}
    )
    if refused.is_error:
        raise NotAsItShould(refused.text[:300])
    of = {"customer": sold["customer"], "subscription": sold["subscription"]}
    await stand_in.ask("POST", "/v1/invoiceitems", **of, amount="45000", currency="usd", description="A day of advice")
    invoice = await stand_in.ask("POST", "/v1/invoices", **of, auto_advance="true")
    since = time.monotonic()
    await stand_in.ask("POST", f"/v1/invoices/{invoice['id']}/finalize")
    told = await notices.of("did not go through", "payment.failed", since)
    standing, _ = await owner.sees(lambda now: now["grace"] is not None and now["open_invoice"] is not None)
    ends = datetime.fromisoformat(standing["grace"]["ends_at"])
    say(
        f"A day of advice is invoiced, and the card has no money: payment failed. "
        f"${standing['open_invoice']['amount']:,.2f} are open, and {standing['plan_name']} goes on until {ends.day} "
        f"{ends:%B}.{told}"
    )


async def _recover(owner: Owner, stand_in: StandIn, notices: Notices, say: Say) -> None:
    owed = (await owner.ask("GET", "/api/billing/subscription"))["open_invoice"]
    since = time.monotonic()
    await stand_in.pay(owed["url"], "pm_card_mastercard")
    standing, seconds = await owner.sees(lambda now: now["status"] == "active")
    told = await notices.of("all is well again", "payment.recovered", since)
    say(f"It pays the invoice with another card: recovered {seconds:.1f} s later. {standing['summary']}{told}")
