"""Everything that is asked of Stripe: how each kind of intent is asked, and what follows from the answer."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from aragora.chassis.sql import Connection
from billing import reflecting
from billing.charge_kinds import CHARGE_KINDS
from billing.intents import Intent, Kind, queries, record
from billing.standing import OWES, moment
from billing.stripe_gateway import Json, StripeGateway, StripeRefused

CREATE_CUSTOMER = "create_customer"
"""No parameters."""
OPEN_CHECKOUT = "open_checkout"
"""`plan`, and Stripe's parameters of a session in `session`."""
EXPIRE_CHECKOUT = "expire_checkout"
"""`session`: its id."""
CHANGE_SUBSCRIPTION = "change_subscription"
"""`subscription`: its id; `change`: Stripe's parameters."""
CANCEL_NOW = "cancel_now"
"""`subscription`: its id. Nothing is given back for what is left of the period."""


async def _create_customer(gateway: StripeGateway, key: str, intent: Intent) -> Json:
    return await gateway.create_customer(key, intent.org_id)


async def _link_customer(conn: Connection, intent: Intent, answer: Json, now: datetime) -> None:
    await conn.execute(reflecting.queries.link_customer, intent.org_id, answer["id"], now)


async def _open_checkout(gateway: StripeGateway, key: str, intent: Intent) -> Json:
    return await gateway.open_checkout(key, **intent.parameters["session"])


async def _save_checkout(conn: Connection, intent: Intent, answer: Json, now: datetime) -> None:
    about = (intent.parameters["plan"], answer["status"], now, moment(answer["expires_at"]))
    await conn.execute(queries.save_checkout, intent.org_id, answer["id"], *about)


async def _expire_checkout(gateway: StripeGateway, key: str, intent: Intent) -> Json:
    """Somebody may have paid just now, or time was faster: then there is nothing left to end."""
    session = intent.parameters["session"]
    try:
        return await gateway.expire_checkout(key, session)
    except StripeRefused:
        found = await gateway.checkout(session)
        if found["status"] == "open":
            raise
        return found


async def _end_checkout(conn: Connection, intent: Intent, answer: Json, _: datetime) -> None:
    await conn.execute(queries.end_checkout, intent.org_id, answer["id"], answer["status"])


async def _change_subscription(gateway: StripeGateway, key: str, intent: Intent) -> Json:
    return await gateway.update_subscription(key, intent.parameters["subscription"], **intent.parameters["change"])


async def _cancel_now(gateway: StripeGateway, key: str, intent: Intent) -> Json:
    """One that has ended already is as it should be."""
    subscription = intent.parameters["subscription"]
    try:
        return await gateway.cancel_subscription(key, subscription)
    except StripeRefused as refusal:
        if not refusal.is_missing:
            raise
        return await gateway.subscription(subscription)


async def _cancel_unpaid(gateway: StripeGateway, key: str, intent: Intent) -> Json:
    """Unless somebody has paid in the meantime."""
    found = await gateway.subscription(intent.parameters["subscription"])
    return await _cancel_now(gateway, key, intent) if found["status"] in OWES else found


KINDS: Mapping[str, Kind] = {
    CREATE_CUSTOMER: Kind(_create_customer, _link_customer),
    OPEN_CHECKOUT: Kind(_open_checkout, _save_checkout),
    EXPIRE_CHECKOUT: Kind(_expire_checkout, _end_checkout),
    CHANGE_SUBSCRIPTION: Kind(_change_subscription),
    CANCEL_NOW: Kind(_cancel_now),
    reflecting.CANCEL_UNPAID: Kind(_cancel_unpaid),
    reflecting.CANCEL_SECOND: Kind(_cancel_now),
    reflecting.CANCEL_CLOSED: Kind(_cancel_now),
    **CHARGE_KINDS,
}
"""By the name that is written down with an intent."""


async def end_payments(conn: Connection, org_id: str, now: datetime) -> bool:
    """Ask for the end of all that an organization pays through Stripe, or could: it is closed. A worker does it.

    In the caller's transaction. Returns whether its plan is one that is paid for: it ends when that has ended.
    """
    once, at_once = "closed/{}", timedelta(0)
    for row in await conn.fetch(queries.open_checkouts, org_id):
        asked = {"session": row["session_id"]}
        await record(conn, org_id, EXPIRE_CHECKOUT, asked, now, once=once.format(row["session_id"]), turn=at_once)
    reference: str | None = await conn.fetchval(queries.paying_subscription, org_id)
    if reference is not None:
        asked = {"subscription": reference}
        await record(conn, org_id, CANCEL_NOW, asked, now, once=once.format(reference), turn=at_once)
    return bool(await conn.fetchval(queries.is_paid, org_id))
