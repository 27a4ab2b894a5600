"""Metering's word that a month is closed, and a catalog that charges for what goes beyond."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

from aragora.chassis.sql import Pool
from aragora.contracts.envelope import envelope
from aragora.contracts.events import UsagePeriodClosed
from billing import invoice_answers, invoice_reading, invoices, subscriptions
from billing.commands import Command
from billing.invoices_api import charge_queries
from billing.usage_periods import follow_metering


def catalog_with_overage(folder: Path) -> str:
    """Aragora's tiers; Professional (200 debates) charges USD 0.50 for each beyond, and 1.10 per dollar of usage."""
    tiers = files("billing").joinpath("catalogs/aragora.toml").read_text(encoding="utf-8")
    tiers = tiers.replace("[plans.professional.limits]", "[plans.professional.limits]\ncost_usd = 40")
    file = folder / "catalog.toml"
    file.write_text(tiers + '\n[plans.professional.overage]\ndebates = "0.50"\ncost_usd = "1.10"\n')
    return str(file)


def closed(
    org_id: str, month: str, at: datetime, totals: Mapping[str, str], *, sequence: int = 1, unpriced: int = 0
) -> bytes:
    """The message with which metering closes a month."""
    event = UsagePeriodClosed(
        month=month,
        sequence=sequence,
        closed_at=at,
        totals={meter: Decimal(total) for meter, total in totals.items()},
        events=100 * sequence,
        unpriced_events=unpriced,
        digest=f"{sequence:064x}",
    )
    return envelope(event, org_id=org_id, occurred_at=at, correlation_id="closing").to_json()


async def close(
    pool: Pool, org_id: str, month: str, at: datetime, totals: Mapping[str, str], *, sequence: int = 1
) -> None:
    """Close a month, as the worker hears of it."""
    await follow_metering(pool, [closed(org_id, month, at, totals, sequence=sequence)], at)


async def charged(pool: Pool, org_id: str) -> list[tuple[str, int, str, str]]:
    """Month, sequence, meter and amount of every charge."""
    rows = await pool.fetch(
        "SELECT month, sequence, meter, amount_usd FROM usage_charges WHERE org_id = $1 ORDER BY 1, 2, 3", org_id
    )
    return [(row["month"], row["sequence"], row["meter"], str(row["amount_usd"])) for row in rows]


async def reasons(pool: Pool, org_id: str) -> list[str]:
    """Why months were charged, or not."""
    rows = await pool.fetch("SELECT reason FROM charged_periods WHERE org_id = $1 ORDER BY month, sequence", org_id)
    return [row["reason"] for row in rows]


async def do(pool: Pool, org_id: str, now: datetime, *commands: Command) -> None:
    """Give an organization plans, as operators do."""
    async with pool.acquire() as connection:
        known = await subscriptions.load_plans(connection)
        for command in commands:
            await subscriptions.execute(connection, org_id, command, known, now=now)


async def explained(pool: Pool, org_id: str) -> list[invoice_answers.Invoice]:
    """Every invoice with its lines explained, the newest first; the sums are checked."""
    async with pool.acquire() as connection:
        plans = await subscriptions.load_plans(connection)
        found = []
        for row in await connection.fetch(invoices.queries.invoices_page, org_id, None, None, 100):
            one = await invoices.load(connection, org_id, row["invoice_id"])
            assert one is not None
            charge_ids = [line.charge_id for line in one.lines if line.charge_id]
            rows = await connection.fetch(charge_queries.charges_of_invoice, org_id, charge_ids)
            found.append(invoice_reading.whole(one, {each["charge_id"]: each for each in rows}, plans))
    for invoice in found:
        assert sum(line.amount for line in invoice.lines) == invoice.total
        for line in invoice.lines:
            assert line.explanation.text
            if line.explanation.usage is not None:
                assert line.explanation.usage.amount_usd == line.amount
    return found
