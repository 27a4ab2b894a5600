"""What requests' paths and queries have in common."""

from typing import Annotated

from fastapi import Path, Query

OrgId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
AnyOrgId = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Whose; absent: the caller's own")]
UserId = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
AnyUserId = Annotated[
    str | None,
    Query(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$", description="Absent: the caller"),
]
Cursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description="The last page's next_cursor")]
Limit = Annotated[int, Query(ge=1, le=100)]


def before(cursor: str | None) -> int | None:
    """The position before which a page begins; None: at the newest."""
    return None if cursor is None else int(cursor)


def cursor_after(positions: list[int], limit: int) -> str | None:
    """Where the next page begins; None if this one is the last."""
    return str(positions[-1]) if len(positions) == limit else None
