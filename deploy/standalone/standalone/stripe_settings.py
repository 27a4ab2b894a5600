"""What billing is told of Stripe: by the operator, or of the stand-in that `aragora up --simulate-stripe` runs."""

# ruff: noqa: PLC0415 - billing's settings are slow to import, and most commands do without Stripe.

import os
from typing import NamedTuple

from standalone.problems import CatalogUnusable, StripeIsSet

NAMES = ("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_API_BASE")
SECRETS = NAMES[:2]
"""What no service but billing is told."""


def set_by_operator() -> list[str]:
    """Stripe's variables that the environment sets."""
    from billing.settings import prices_from_environment

    return [*(name for name in NAMES if os.environ.get(name)), *sorted(prices_from_environment())]


def demand_unset() -> None:
    """Raises `StripeIsSet` if the operator has set any of Stripe's variables."""
    found = set_by_operator()
    if found:
        raise StripeIsSet(
            f"Stripe itself is set up ({', '.join(found)}), so there is nothing to simulate. Unset that in the "
            "environment, or start without --simulate-stripe."
        )


def of_stand_in(port: int) -> dict[str, str]:
    """Billing's settings for the stand-in on that port, with a price for every plan that costs something.

    Raises:
        CatalogUnusable: nobody knows what is sold.
    """
    from billing.settings import price_variable

    return {
        # Made up, and good for nothing but a stand-in on this machine.
        "STRIPE_SECRET_KEY": "sk_test_simulated_not_a_secret",
        "STRIPE_WEBHOOK_SECRET": "whsec_simulated_not_a_secret",
        "STRIPE_API_BASE": f"http://127.0.0.1:{port}",
        **{price_variable(price.plan): price.price_id for price in prices()},
    }


class Price(NamedTuple):
    """What a plan costs a month at the stand-in."""

    plan: str
    name: str
    cents: int

    @property
    def price_id(self) -> str:
        """Its id there."""
        return f"price_simulated_{self.plan}"


def prices() -> list[Price]:
    """The plans of the operator's catalog that cost something. Raises `CatalogUnusable`."""
    from billing.catalog import CatalogError
    from billing.settings import CATALOGS, read_catalog

    try:
        catalog = read_catalog(os.environ.get("ARAGORA_CATALOG") or CATALOGS[0])
    except CatalogError as error:
        raise CatalogUnusable(str(error)) from error
    found = [Price(plan.plan, plan.name, int(plan.price_usd_per_month * 100)) for plan in catalog.plans]
    return [price for price in found if price.cents > 0]
