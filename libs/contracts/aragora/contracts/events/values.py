"""Values that events of several services have in common."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

UsdAmount = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Quantity = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Month = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$", description="A calendar month in UTC, YYYY-MM")]
Name = Annotated[str, Field(min_length=1, max_length=128)]

PLATFORM = "platform"
"""Stands for the organization in events that concern none, such as `PlanPublished`. It is nobody's id."""
