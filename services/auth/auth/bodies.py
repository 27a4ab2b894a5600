"""What requests' bodies have in common."""

from typing import Annotated

from pydantic import Field

from aragora.billing.models import normalize_email
from aragora.chassis.bodies import invalid

MAX_PASSWORD_LENGTH = 256

Email = Annotated[str, Field(min_length=3, max_length=320)]
Password = Annotated[str, Field(min_length=1, max_length=MAX_PASSWORD_LENGTH)]
Code = Annotated[str, Field(min_length=1, max_length=64, description="Six digits, or a recovery code")]
Token = Annotated[str, Field(min_length=1, max_length=8192)]
PersonName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]


Reason = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""A word, not a sentence: it goes into an event, which is kept for ever and must name nobody."""


def normalized(email: str) -> str:
    """The address as accounts have it.

    Raises:
        Problem: 422, it is none.
    """
    try:
        return normalize_email(email)
    except ValueError as error:
        raise invalid("email", str(error)) from error
