"""What requests' bodies, paths and queries have in common."""

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from aragora.chassis.problems import Problem

OrgId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
AnyOrgId = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Whose; absent: the caller's own")]
UserId = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
AnyUserId = Annotated[
    str | None,
    Query(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$", description="Absent: the caller"),
]
Cursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description="The last page's next_cursor")]
Limit = Annotated[int, Query(ge=1, le=100)]


class Body(BaseModel):
    """Refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", strict=True)


def invalid(field: str, message: str) -> Problem:
    """The answer to a field that no schema could have refused."""
    return Problem(422, "Mend the fields listed in errors.", errors=[(None, field, message)])


def before(cursor: str | None) -> int | None:
    """The position before which a page begins; None: at the newest."""
    return None if cursor is None else int(cursor)


def cursor_after(positions: list[int], limit: int) -> str | None:
    """Where the next page begins; None if this one is the last."""
    return str(positions[-1]) if len(positions) == limit else None


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
        ValueError: it is a number, which could be seconds or milliseconds.
    """
    if not isinstance(moment, str) or not re.match(r"\d{4}-", moment):
        raise ValueError("must be an RFC 3339 moment with an offset, such as 2026-01-31T12:00:00Z")
    return moment


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(written_out), AfterValidator(in_utc)]
