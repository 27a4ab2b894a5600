"""Questions about limits, over HTTP and on `rpc.metering.<verb>`: what is about to be used, may it be?

Like usage events, these are msgspec structs: they are decoded thousands of times a second (docs/decisions/0002).
"""

from typing import Annotated

from msgspec import Meta, Struct

from aragora.contracts.usage import MAX_COUNT, MAX_ID_LENGTH, Amount

MAX_OPERATIONS = 50
DEFAULT_TTL_SECONDS = 60
MAX_TTL_SECONDS = 24 * 3600

Name = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Without control characters, which neither a usage event nor Postgres takes."""
Several = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
OrgName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Ttl = Annotated[int, Meta(ge=1, le=MAX_TTL_SECONDS)]


class Operation(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Something that is about to be done. Say what you know, as its usage event will say it, and the meters follow:

    a call to a provider moves `api_calls`, `calls:<provider>`, `tokens`, `tokens:<provider>` and `cost_usd`; an
    `event_type` of `debate` moves `debates`. What is not known in advance (tokens, cost) holds nothing, and is refused
    only once nothing is left of the meter.

    Or name one `meter` and an `amount` of it: an integer, or for `cost_usd` a decimal in a string.
    """

    event_type: Name | None = None
    provider: Name | None = None
    model: Name | None = None
    requests: Several | None = None
    """Calls; one, if absent."""
    tokens: Several | None = None
    """In and out together, where they are not known apart."""
    tokens_in: Several | None = None
    tokens_out: Several | None = None
    images: Several | None = None
    searches: Several | None = None
    pages: Several | None = None
    seconds: Amount | None = None
    cost_usd: Amount | None = None
    """If absent, what the price book says of the model and the tokens; if that is not enough, unknown."""
    meter: Name | None = None
    amount: Several | Amount | None = None


Operations = Annotated[list[Operation], Meta(min_length=1, max_length=MAX_OPERATIONS)]


class CheckLimits(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Would all of these be allowed now? Nothing is held."""

    operations: Operations
    org_id: OrgName | None = None
    """Whose limits. Programs name it; a person's own organization, if absent."""
    user_id: Name | None = None


class Reserve(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Hold the amounts of all of these operations, for every limit that they touch, or of none.

    A usage event that names the reservation settles it. `idempotency_key`: the same key with the same body is the same
    reservation, however often it is sent; give one, so that a retry after a lost answer holds nothing twice.
    """

    operations: Operations
    org_id: OrgName | None = None
    user_id: Name | None = None
    idempotency_key: Name | None = None
    ttl_seconds: Ttl = DEFAULT_TTL_SECONDS


class Release(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Give back what a reservation holds: its operation did not take place."""

    reservation_id: Name
    org_id: OrgName | None = None


class Extend(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Keep a reservation for `ttl_seconds` from now: its operation takes longer."""

    reservation_id: Name
    ttl_seconds: Ttl
    org_id: OrgName | None = None
