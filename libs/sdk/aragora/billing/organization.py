"""An organization, as a product keeps one in its own memory."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from aragora.billing.records import read_field, read_moment, read_optional
from aragora.billing.tiers import TIER_LIMITS, SubscriptionTier, TierLimits
from aragora.contracts.ids import new_id

MAX_SLUG_CHARACTERS = 63  # as long as a label of a domain name may be (RFC 1035)


def generate_slug(name: str) -> str:
    """A name for use in addresses: `acme-corp` for "Acme Corp". Lower-case letters a to z, digits and single dashes.

    Accents are dropped; of a name in another script nothing is left, and the slug is `organization`. At most 63
    characters. It is not unique: whoever stores it sees to that.
    """
    folded = unicodedata.normalize("NFKD", name[:1_000].casefold())
    ascii_only = folded.encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")
    return words[:MAX_SLUG_CHARACTERS].rstrip("-") or "organization"


@dataclass(slots=True)
class Organization:
    """An organization on a tier, with a count of this month's debates.

    The count is this object's own. What the platform counted, and what is left of it for everybody who asks at the same
    moment, `aragora.billing.limits` answers.
    """

    name: str
    slug: str = ""
    tier: SubscriptionTier = SubscriptionTier.FREE
    owner_id: str | None = None
    id: str = field(default_factory=lambda: str(new_id()))
    debates_used_this_month: int = 0
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.slug = self.slug or generate_slug(self.name)

    @property
    def limits(self) -> TierLimits:
        return TIER_LIMITS[self.tier]

    @property
    def debates_remaining(self) -> int | None:
        """How many debates are left this month; None: as many as you like."""
        allowed = self.limits.debates_per_month
        return None if allowed is None else max(0, allowed - self.debates_used_this_month)

    @property
    def is_at_limit(self) -> bool:
        return self.debates_remaining == 0

    def increment_debates(self) -> bool:
        """Count a debate. False, and nothing is counted, if none is left."""
        if self.is_at_limit:
            return False
        self.debates_used_this_month += 1
        return True

    def reset_monthly_usage(self) -> None:
        """Begin to count anew, as at the turn of a month."""
        self.debates_used_this_month = 0

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            "id": self.id,
            "name": self.name,
            "slug": self.slug,
            "tier": self.tier.value,
            "owner_id": self.owner_id,
            "debates_used_this_month": self.debates_used_this_month,
            "debates_remaining": self.debates_remaining,
            "created_at": self.created_at.isoformat(),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The organization that `to_dict` wrote. Fields that are not known are passed over.

        Raises:
            ValueError: a field is missing or wrong; the message names it.
        """
        tier = read_field(record, "tier", str, SubscriptionTier.FREE.value)
        if tier not in set(SubscriptionTier):
            raise ValueError(f"tier must be one of {', '.join(SubscriptionTier)}")
        used = read_field(record, "debates_used_this_month", int, 0)
        if used < 0:
            raise ValueError("debates_used_this_month must be 0 or more")
        return cls(
            name=read_field(record, "name", str),
            slug=read_field(record, "slug", str, ""),
            tier=SubscriptionTier(tier),
            owner_id=read_optional(record, "owner_id"),
            id=read_optional(record, "id") or str(new_id()),
            debates_used_this_month=used,
            created_at=read_moment(record, "created_at"),
        )
