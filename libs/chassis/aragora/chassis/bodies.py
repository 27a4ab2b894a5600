"""What requests' bodies have in common in every service."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from aragora.chassis.problems import Problem


class Body(BaseModel):
    """Refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", strict=True)


def invalid(field: str, message: str) -> Problem:
    """The answer to a field that no schema could have refused."""
    return Problem(422, "Mend the fields listed in errors.", errors=[(None, field, message)])


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC.

    Raises:
        ValueError: it lies before the year 1, or after the year 9999.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies before the year 1, or after the year 9999") from error


def written_out(moment: object) -> object:
    """The moment as it came, if it is a text that begins with a year.

    Raises:
        ValueError: it is a number, which the library would take for seconds or milliseconds.
    """
    if not isinstance(moment, str) or not re.match(r"\d{4}-", moment):
        raise ValueError("must be an RFC 3339 moment with an offset, such as 2026-01-31T12:00:00Z")
    return moment


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(written_out), AfterValidator(in_utc)]
"""Moments in requests: RFC 3339 with an offset, in UTC from here on."""
