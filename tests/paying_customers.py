"""People who pay for a plan on a platform of separate processes, at a Stripe simulator in the test's own process."""

from collections.abc import Mapping

from auth_platform import PASSWORD, any_email
from paying_world import CANCEL, PRICES, SUCCESS, price_id
from promises import rows
from separate_services import SeparateServices
from servers import eventually
from traffic import PATIENCE_SECONDS, Traffic

from standalone.stripe_simulator import cards, catalogue, routes
from standalone.stripe_simulator import checkout as stripe_checkout
from standalone.stripe_simulator.simulator import RunningSimulator

PLAN = "professional"


def settings(simulator: RunningSimulator) -> Mapping[str, str]:
    """What billing is told of the simulator, which gets the prices of the catalog's plans."""
    for plan, cents in PRICES.items():
        catalogue.put_price(simulator.world, price_id(plan), plan.title(), cents)
    return {
        "STRIPE_SECRET_KEY": simulator.secret_key,
        "STRIPE_WEBHOOK_SECRET": simulator.webhook_secret,
        "STRIPE_API_BASE": simulator.url,
        **{f"STRIPE_PRICE_{plan.upper()}": price_id(plan) for plan in PRICES},
    }


class PayingCustomers:
    """One after another registers, pays, and has what was paid for; `paid` are their organizations."""

    def __init__(self, simulator: RunningSimulator, traffic: Traffic) -> None:
        self.paid: set[str] = set()
        self._simulator = simulator
        self._traffic = traffic
        traffic.also["pay"] = self._pay

    def tell(self, billing_url: str) -> None:
        """From now on webhooks go to this API of billing."""
        endpoint = {"url": f"{billing_url}/api/webhooks/stripe", "enabled_events": ["*"]}
        known = self._simulator.world.table("webhook_endpoint")
        if not known:
            routes.create_endpoint(self._simulator.world, endpoint, self._simulator.webhook_secret)
        for one in known.values():
            one["url"] = endpoint["url"]

    async def _pay(self) -> None:
        ask, account = self._traffic.ask, {"email": any_email(), "password": PASSWORD}
        assert (await ask("auth", "POST", "/api/auth/register", account, None)).status_code in (201, 409)
        signed_in = (await ask("auth", "POST", "/api/auth/login", account, None)).json()["data"]
        org_id, token = signed_in["organization"]["org_id"], signed_in["access_token"]
        path = f"/api/subscription/organizations/{org_id}/subscription"

        async def has_plan(plan: str) -> bool:
            answer = await ask("billing", "GET", path, None, token)
            return answer.is_success and answer.json()["data"]["plan"] == plan

        await eventually(lambda: has_plan("free"), PATIENCE_SECONDS, what="billing knows of the organization")
        body = {"plan": PLAN, "success_url": SUCCESS, "cancel_url": CANCEL}
        opened = await ask("billing", "POST", "/api/billing/checkout", body, token)
        assert opened.is_success, opened.text
        session_id = opened.json()["data"]["session_id"]
        stripe_checkout.complete(self._simulator.world, session_id, cards.card_named("pm_card_visa"))
        await eventually(lambda: has_plan(PLAN), PATIENCE_SECONDS, what="what was paid for is there")
        self.paid.add(org_id)
        self._traffic.plans[org_id] = PLAN

    async def judge(self, parts: SeparateServices) -> None:
        """Each has paid once: at Stripe, in billing's books, and as billing said."""
        told = await rows(parts, "billing", "SELECT org_id FROM events WHERE type LIKE '%.PaymentSucceeded.%'")
        assert sorted(row["org_id"] for row in told) == sorted(self.paid)
        invoices = await rows(parts, "billing", "SELECT org_id FROM invoices WHERE status = 'paid'")
        assert sorted(row["org_id"] for row in invoices) == sorted(self.paid)
        at_stripe = self._simulator.world.table("invoice").values()
        assert sum(one["status"] == "paid" for one in at_stripe) == len(self.paid)
