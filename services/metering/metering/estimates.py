"""What an operation will probably cost. Pure."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from aragora.billing.pricebook import PriceBook
from aragora.contracts.limits import Operation
from aragora.contracts.usage import Usage


def estimate(prices: PriceBook, operation: Operation, now: datetime) -> Decimal | None:
    """What an operation will cost in USD, as the caller says, else the price book; None if neither knows."""
    if operation.cost_usd is not None:
        return Decimal(operation.cost_usd)
    counted = operation.tokens_in is not None and operation.tokens_out is not None
    charged_otherwise = any(
        quantity is not None for quantity in (operation.images, operation.searches, operation.pages, operation.seconds)
    )
    if operation.provider is None or not (counted or charged_otherwise):
        return None
    amounts: dict[str, Any] = {
        name: getattr(operation, name)
        for name in ("tokens_in", "tokens_out", "requests", "images", "searches", "pages", "seconds", "model")
        if getattr(operation, name) is not None
    }
    usage = Usage(event_type=operation.event_type or "api_call", provider=operation.provider, **amounts)
    return prices.rate(usage, now)[0]
