"""What is asked of Stripe about charges and credits, and what follows from the answers."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from aragora.chassis import sql
from aragora.chassis.sql import Connection
from billing import ledger
from billing.intents import Intent, Kind, record
from billing.stripe_gateway import Json, StripeGateway, StripeRefused

queries = sql.load("billing", "sql/charges.sql")

NOTHING_TO_INVOICE = "invoice_no_customer_line_items"
"""Stripe's word for it: every line is on an invoice already."""


async def _add_line(gateway: StripeGateway, key: str, intent: Intent) -> Json:
    line = intent.parameters["line"]
    if _was_asked(intent):
        known = await gateway.invoice_items_of(line["customer"])
        found = _by_metadata(known, "charge_id", line["metadata"]["charge_id"])
        if found is not None:
            return found
    return await gateway.add_invoice_item(key, **line)


async def _invoice_if_last(conn: Connection, intent: Intent, _: Json, now: datetime) -> None:
    # The subscription may have ended meanwhile: then there is no next invoice for the line.
    if not await conn.fetchval(queries.has_live_subscription, intent.org_id):
        asked = {"customer": intent.parameters["line"]["customer"], "lines": []}
        once = f"after/{intent.intent_id}"
        await record(conn, intent.org_id, "invoice_lines_now", asked, now, once=once, turn=timedelta(0))


async def _invoice_lines_now(gateway: StripeGateway, key: str, intent: Intent) -> Json:
    customer, lines = intent.parameters["customer"], intent.parameters["lines"]
    known = await gateway.invoice_items_of(customer) if lines and _was_asked(intent) else []
    for line in lines:
        charge_id = line["metadata"]["charge_id"]
        if _by_metadata(known, "charge_id", charge_id) is None:
            await gateway.add_invoice_item(f"{key}/{charge_id}", **line)
    method = await _payment_method(gateway, customer)
    paid_by = {"default_payment_method": method} if method else {}
    try:
        invoice = await gateway.create_invoice(
            f"{key}/invoice/{method}",  # asked again with another one, there is nothing left to invoice
            customer=customer, auto_advance=True, collection_method="charge_automatically",
            pending_invoice_items_behavior="include", metadata={"org_id": intent.org_id}, **paid_by,
        )  # fmt: skip
    except StripeRefused as refusal:
        if refusal.code != NOTHING_TO_INVOICE:
            raise
        return {"object": "invoice", "status": "nothing_to_invoice"}
    return await gateway.finalize_invoice(f"{key}/finalize", invoice["id"])


async def _payment_method(gateway: StripeGateway, customer: str) -> str | None:
    # An invoice of its own is paid by the customer's default. Checkout gives the card to the subscription instead.
    said = await gateway.customer(customer)
    if (said.get("invoice_settings") or {}).get("default_payment_method") is not None:
        return None
    subscriptions = await gateway.subscriptions_of(customer)  # the newest first
    return next((one["default_payment_method"] for one in subscriptions if one.get("default_payment_method")), None)


async def _move_credit(gateway: StripeGateway, key: str, intent: Intent) -> Json:
    customer = intent.parameters["customer"]
    if _was_asked(intent):
        found = _by_metadata(await gateway.balance_changes_of(customer), "intent_id", intent.intent_id)
        if found is not None:
            return found
    return await gateway.change_balance(
        key, customer, amount=-intent.parameters["amount"], currency=intent.parameters["currency"],
        description=intent.parameters["description"],
        metadata={"org_id": intent.org_id, "intent_id": intent.intent_id},
    )  # fmt: skip


def _was_asked(intent: Intent) -> bool:
    # Stripe forgets a key after a day: when it is asked again, we look first.
    return intent.attempts > 1


def _by_metadata(known: Sequence[Json], name: str, value: str) -> Json | None:
    return next((one for one in known if (one.get("metadata") or {}).get(name) == value), None)


CHARGE_KINDS: Mapping[str, Kind] = {
    "add_line": Kind(_add_line, _invoice_if_last),
    "invoice_lines_now": Kind(_invoice_lines_now),
    ledger.MOVE_CREDIT: Kind(_move_credit, ledger.conclude_move),
}
