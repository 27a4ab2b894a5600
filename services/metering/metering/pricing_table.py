"""`api_provider_pricing`: the price book's tables, written out for people and reports that read SQL."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from aragora.billing.pricebook import PriceBook
from aragora.billing.prices.rates import RATE_NAMES
from aragora.billing.prices.tables import ALWAYS
from aragora.chassis import sql
from aragora.chassis.sql import Connection

queries = sql.load("metering", "sql/pricing.sql")
SINCE_EVER = datetime(1970, 1, 1, tzinfo=UTC)
"""How the table writes that a price always applied."""


async def write(connection: Connection, price_tables: Sequence[Path]) -> None:
    """Make the table equal to the price book's own, as they are in force now."""
    rows = PriceBook.load(price_tables).rows(datetime.now(UTC))
    records = [
        (row.provider, row.model, SINCE_EVER if row.valid_from == ALWAYS else row.valid_from, unit, rate, row.source)
        for row in rows
        for unit in RATE_NAMES
        if (rate := getattr(row.rates, unit)) is not None
    ]
    async with connection.transaction():
        await connection.execute(queries.clear_pricing)
        await connection.executemany(queries.add_price, records)
