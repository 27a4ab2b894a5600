"""Products and prices: what is sold, and for how much a month."""

from decimal import Decimal
from typing import Any

import stripe

from standalone.stripe_simulator.fields import store
from standalone.stripe_simulator.problems import invalid, unsupported
from standalone.stripe_simulator.shapes import Thing, cents, dollars
from standalone.stripe_simulator.world import World


def create_product(world: World, params: Thing) -> Thing:
    """POST /v1/products."""
    product_id = params.pop("id", None)
    if product_id and product_id in world.table("product"):
        raise invalid("Product already exists.", "id", "resource_already_exists")
    if "default_price_data" in params:
        raise unsupported("`default_price_data`", "default_price_data")
    now = world.time_of()
    product = world.new(
        stripe.Product,
        "prod",
        id=product_id,
        active=True,
        created=now,
        updated=now,
        images=[],
        marketing_features=[],
        type="service",
    )
    store(product, params, stripe.Product)
    world.emit("product.created", product)
    return product


def update_product(world: World, params: Thing, product: str) -> Thing:
    """POST /v1/products/{id}."""
    thing = world.alive("product", product)
    with world.changing(thing, "product.updated"):
        store(thing, params, stripe.Product)
    return thing


def create_price(world: World, params: Thing, price_id: str | None = None) -> Thing:
    """POST /v1/prices: an amount once, or per interval; metered prices name their meter."""
    if "product_data" in params:
        product = create_product(world, params.pop("product_data"))["id"]
    else:
        product = world.alive("product", params.pop("product", ""), "product")["id"]
    if params.get("billing_scheme") == "tiered" or "tiers" in params or "custom_unit_amount" in params:
        raise unsupported("prices in tiers, nor such as the customer names")
    if params.get("currency", "").lower() != "usd":
        raise unsupported("currencies other than usd", "currency")
    exact = Decimal(params.pop("unit_amount_decimal", None) or params.get("unit_amount", -1))
    if exact < 0:
        raise invalid("You must specify one of unit_amount or unit_amount_decimal.", "unit_amount")
    given = params.pop("recurring", None)
    recurring = given and _recurring(world, given)
    params.pop("unit_amount", None)
    params.pop("currency")
    price = world.new(
        stripe.Price,
        "price",
        id=price_id,
        active=True,
        billing_scheme="per_unit",
        created=world.time_of(),
        currency="usd",
        product=product,
        recurring=recurring,
        tax_behavior="unspecified",
        type="recurring" if recurring else "one_time",
        unit_amount=int(exact) if exact == exact.to_integral_value() else None,
        unit_amount_decimal=f"{exact.normalize():f}",
    )
    store(price, params, stripe.Price, also=("transfer_lookup_key",))
    world.emit("price.created", price)
    return price


def _recurring(world: World, given: Thing) -> Thing:
    meter = given.get("meter")
    if meter:
        world.get("billing.meter", meter, "recurring[meter]")
    elif given.get("usage_type") == "metered":
        raise invalid("A metered price must be backed by a meter.", "recurring[meter]")
    return {
        "interval": given["interval"],
        "interval_count": given.get("interval_count", 1),
        "meter": meter,
        "trial_period_days": None,
        "usage_type": given.get("usage_type", "licensed"),
    }


def update_price(world: World, params: Thing, price: str) -> Thing:
    """POST /v1/prices/{id}: its amount never changes; a new amount is a new price."""
    thing = world.get("price", price)
    with world.changing(thing, "price.updated"):
        store(thing, params, stripe.Price, also=("transfer_lookup_key",))
    return thing


def put_price(world: World, price_id: str, name: str, unit_amount: int, interval: str = "month") -> Thing:
    """A price with an id of one's own choosing, and a product for it: what configuration names. For tests and demos."""
    if price_id in world.table("price"):
        return world.get("price", price_id)
    given: Thing = {
        "product_data": {"name": name},
        "unit_amount": unit_amount,
        "currency": "usd",
        "recurring": {"interval": interval},
    }
    return create_price(world, given, price_id)


def sold(world: World, price_id: Any, param: str = "price") -> Thing:
    """The price, if it may be sold. Raises StripeProblem."""
    price = world.get("price", price_id, param)
    if not price["active"]:
        raise invalid("The price specified is inactive. This field only accepts active prices.", param)
    return price


def amount_of(price: Thing, quantity: Decimal | int) -> int:
    """Whole cents for that many."""
    return cents(Decimal(price["unit_amount_decimal"]) * quantity)


def rate_text(world: World, price: Thing, quantity: int) -> str:
    """How a line calls a whole period: quantity, name and price."""
    product = world.get("product", price["product"])
    per = f" / {price['recurring']['interval']}" if price["recurring"] else ""
    return f"{quantity} × {product['name']} (at {dollars(price['unit_amount'] or 0)}{per})"  # noqa: RUF001


def named(world: World, price: Thing) -> str:
    """The name of what is sold."""
    name: str = world.get("product", price["product"])["name"]
    return name
