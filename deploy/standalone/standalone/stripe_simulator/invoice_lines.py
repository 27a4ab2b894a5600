"""Lines of invoices and the invoice items that become lines."""

from decimal import Decimal

import stripe

from standalone.stripe_simulator import catalogue
from standalone.stripe_simulator.clock import day_of
from standalone.stripe_simulator.fields import store
from standalone.stripe_simulator.problems import invalid
from standalone.stripe_simulator.shapes import Thing, cents
from standalone.stripe_simulator.world import World

Line = Thing
"""A line, or what is about to become an invoice item: without an id until somebody keeps it."""


def pricing_of(price: Thing) -> Thing:
    """What a line says of its price."""
    return {
        "price_details": {"price": price["id"], "product": price["product"]},
        "type": "price_details",
        "unit_amount_decimal": price["unit_amount_decimal"],
    }


def line(amount: int, description: str | None, period: tuple[int, int], quantity: int | None, **fields: object) -> Line:
    """A line of that many cents, for that period (Unix seconds)."""
    return {
        "object": "line_item",
        "amount": amount,
        "currency": "usd",
        "description": description,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "livemode": False,
        "metadata": {},
        "parent": None,
        "period": {"start": period[0], "end": period[1]},
        "pretax_credit_amounts": [],
        "pricing": None,
        "quantity": quantity,
        "quantity_decimal": None if quantity is None else str(quantity),
        "subscription": None,
        "subtotal": amount,
        "taxes": [],
    } | fields


def of_item(subscription: Thing, item: Thing, *, proration: bool = False, invoice_item: str | None = None) -> Thing:
    """The parent of a line that a subscription's item gave rise to."""
    return {
        "invoice_item_details": None,
        "subscription_item_details": {
            "invoice_item": invoice_item,
            "proration": proration,
            "proration_details": {"credited_items": None},
            "subscription": subscription["id"],
            "subscription_item": item["id"],
        },
        "type": "subscription_item_details",
    }


def licensed(world: World, subscription: Thing, item: Thing, period: tuple[int, int], *, free: bool = False) -> Line:
    """The line for a period ahead; `free` in a trial."""
    price, quantity = item["price"], item["quantity"] or 1
    amount = 0 if free else catalogue.amount_of(price, quantity)
    text = f"Trial period for {catalogue.named(world, price)}" if free else catalogue.rate_text(world, price, quantity)
    parent = of_item(subscription, item)
    return line(
        amount,
        text,
        period,
        quantity,
        parent=parent,
        pricing=pricing_of(price),
        metadata=dict(subscription["metadata"]),
    ) | {"subscription": subscription["id"]}


def metered(world: World, subscription: Thing, item: Thing, period: tuple[int, int]) -> Line:
    """The line for the usage of a period that has ended, by the price's meter."""
    price = item["price"]
    used = usage_in(world, price["recurring"]["meter"], subscription["customer"], period)
    text = f"{used} × {catalogue.named(world, price)}"  # noqa: RUF001
    whole = int(used) if used == used.to_integral_value() else None
    amount = catalogue.amount_of(price, used)
    made = line(amount, text, period, whole, parent=of_item(subscription, item), pricing=pricing_of(price))
    return made | {"quantity_decimal": f"{used:f}", "subscription": subscription["id"]}


def usage_in(world: World, meter_id: str, customer: str, period: tuple[int, int]) -> Decimal:
    """What the meter counted in [start, end), by its formula."""
    meter = world.get("billing.meter", meter_id)
    values = [Decimal(v) for at, v in world.usage.get((meter_id, customer), []) if period[0] <= at < period[1]]
    formula = meter["default_aggregation"]["formula"]
    if formula == "count":
        return Decimal(len(values))
    if formula == "last":
        return values[-1] if values else Decimal(0)
    return sum(values, Decimal(0))


def proration(world: World, subscription: Thing, item: Thing, amount: int, period: tuple[int, int]) -> Line:
    """A credit (negative) or a charge for the rest of a period."""
    kind = "Unused time on" if amount < 0 else "Remaining time on"
    quantity = item["quantity"] or 1
    many = f"{quantity} × " if quantity != 1 else ""  # noqa: RUF001
    text = f"{kind} {many}{catalogue.named(world, item['price'])} after {day_of(period[0])}"
    parent = of_item(subscription, item, proration=True)
    pricing = pricing_of(item["price"])
    made = line(amount, text, period, quantity, parent=parent, pricing=pricing, discountable=False)
    return made | {"subscription": subscription["id"], "metadata": dict(subscription["metadata"])}


def keep_as_item(world: World, customer: Thing, made: Line) -> Thing:
    """The invoice item for a proration, which waits for the customer's next invoice."""
    details = made["parent"]["subscription_item_details"]
    parent = {
        "subscription_details": {k: details[k] for k in ("subscription", "subscription_item")},
        "type": "subscription_details",
    }
    shared = {
        k: made[k] for k in ("amount", "description", "discountable", "period", "pricing", "quantity", "metadata")
    }
    item = _item(world, customer, **shared, parent=parent, proration=True)
    world.emit("invoiceitem.created", item)
    return item


def _item(world: World, customer: Thing, **fields: object) -> Thing:
    item = world.new(
        stripe.InvoiceItem,
        "ii",
        currency="usd",
        customer=customer["id"],
        date=world.time_of(customer),
        discountable=True,
        discounts=[],
        frozen_fields=[],
        proration=False,
        tax_rates=[],
        test_clock=customer["test_clock"],
    )
    item |= fields
    item["net_amount"] = item["amount"]
    item["quantity_decimal"] = str(item["quantity"])
    world.items_of.setdefault(customer["id"], []).append(item["id"])
    return item


def create_item(world: World, params: Thing) -> Thing:
    """POST /v1/invoiceitems: by `amount`, by `unit_amount_decimal` times `quantity`, or by a price."""
    customer = world.alive("customer", params.pop("customer", ""), "customer")
    now = world.time_of(customer)
    quantity = params.pop("quantity", 1)
    pricing = params.pop("pricing", None)
    exact = params.pop("unit_amount_decimal", None)
    amount = params.pop("amount", None)
    if pricing:
        price = catalogue.sold(world, pricing.get("price"), "pricing[price]")
        if price["recurring"]:
            raise invalid("The price specified is set to `type=recurring` but this field only accepts `type=one_time`.")
        amount, pricing = catalogue.amount_of(price, quantity), pricing_of(price)
    elif amount is None:
        if exact is None:
            raise invalid("You must pass either `amount`, `unit_amount_decimal` or `pricing`.", "amount")
        amount = cents(exact * quantity)
    if params.pop("currency", "usd") != "usd":
        raise invalid("The currency of the customer is usd.", "currency")
    subscription, invoice = params.pop("subscription", None), params.pop("invoice", None)
    parent = None
    if subscription:
        world.get("subscription", subscription, "subscription")
        details = {"subscription": subscription, "subscription_item": None}
        parent = {"subscription_details": details, "type": "subscription_details"}
    if invoice and world.get("invoice", invoice, "invoice")["status"] != "draft":
        raise invalid("This invoice is no longer editable", "invoice", "invoice_not_editable")
    unit = exact if exact is not None else Decimal(amount) / quantity
    item = _item(
        world,
        customer,
        amount=amount,
        description=None,
        parent=parent,
        period={"start": now, "end": now},
        pricing=pricing or {"price_details": None, "type": "price_details", "unit_amount_decimal": f"{unit:f}"},
        quantity=quantity,
        invoice=invoice,
    )
    store(item, params, stripe.InvoiceItem)
    world.emit("invoiceitem.created", item)
    return item


def pending(world: World, customer: str, subscription: str | None) -> list[Thing]:
    """The invoice items that wait for an invoice of that subscription, or of no subscription in particular."""
    waiting = []
    for item in map(world.table("invoiceitem").__getitem__, world.items_of.get(customer, [])):
        if item.get("deleted") or item["invoice"]:
            continue
        bound_to = item["parent"] and item["parent"]["subscription_details"]["subscription"]
        if bound_to in (None, subscription):
            waiting.append(item)
    return waiting


def line_of(item: Thing) -> Line:
    """The line that an invoice item becomes."""
    details = item["parent"] and item["parent"]["subscription_details"]
    subscription = details and details["subscription"]
    shared = {
        "invoice_item": item["id"],
        "proration": item["proration"],
        "proration_details": {"credited_items": None},
        "subscription": subscription,
    }
    by_change = bool(item["proration"] and details)
    parent = {
        "invoice_item_details": None if by_change else shared,
        "subscription_item_details": shared | {"subscription_item": details["subscription_item"]}
        if by_change
        else None,
        "type": "subscription_item_details" if by_change else "invoice_item_details",
    }
    period = (item["period"]["start"], item["period"]["end"])
    made = line(item["amount"], item["description"], period, item["quantity"], parent=parent, pricing=item["pricing"])
    return made | {
        "discountable": item["discountable"],
        "metadata": dict(item["metadata"]),
        "subscription": subscription,
    }
