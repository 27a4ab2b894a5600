"""Moments in requests: RFC 3339 with an offset, in UTC from here on."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC.

    Raises:
        ValueError: it lies before the year 1, or after the year 9999.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies before the year 1, or after the year 9999") from error


Moment = Annotated[AwareDatetime, Field(strict=False), AfterValidator(in_utc)]
