"""Every kind of notification there is: who must know, and through which channel unless they choose otherwise.

A kind's name is one word for it everywhere: the `type` of an alert and of a webhook, and the key of a preference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Audience = Literal["everybody", "administrators", "person", "operators"]
"""`everybody` in the organization, its owners and admins, one person, or the platform's operators."""
Email = Literal["at_once", "digest", "off"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of notification."""

    name: str
    description: str
    audience: Audience
    email: Email
    """How it comes by e-mail to who chose nothing."""
    essential: bool = False
    """Nobody can do without: its e-mail comes at once, whatever was chosen."""
    in_app: bool = True
    """Whether it is an alert. What is not is a letter with a secret in it."""
    webhook: bool = True
    """Whether endpoints get it."""


_ALL = (
    Kind("limit.reached", "80, 90 or 100 % of a limit are used", "everybody", "at_once"),
    Kind("budget.exceeded", "More is spent than was meant to be", "administrators", "at_once"),
    Kind("usage.unpriced", "Usage came that no price is known for", "administrators", "digest"),
    Kind("usage.anomaly", "A day is far from what days are like", "administrators", "at_once"),
    Kind("subscription.changed", "The plan is another, or will be", "administrators", "at_once"),
    Kind("subscription.cancelled", "The plan ends", "administrators", "at_once"),
    Kind("invoice.finalized", "An invoice is there", "administrators", "at_once"),
    Kind("payment.succeeded", "An invoice is paid", "administrators", "digest"),
    Kind("payment.failed", "A payment did not go through", "administrators", "at_once", essential=True),
    Kind("payment.action_required", "The bank asks to confirm a payment", "administrators", "at_once", essential=True),
    Kind("payment.reminder", "An invoice is still not paid", "administrators", "at_once", essential=True),
    Kind("payment.recovered", "What had failed is paid", "administrators", "at_once"),
    Kind("payment.waived", "Nothing is owed any more", "administrators", "at_once"),
    Kind("payment.refunded", "Money went back", "administrators", "at_once"),
    Kind("payment.disputed", "The payer's bank contests a payment", "administrators", "at_once"),
    Kind("credit.granted", "Something is taken off the next invoices", "administrators", "digest"),
    Kind("grace_period.expired", "Nobody paid in time", "administrators", "at_once", essential=True),
    Kind("endpoint.failing", "A webhook endpoint does not take its messages", "administrators", "at_once"),
    Kind("endpoint.disabled", "A webhook endpoint was disabled", "administrators", "at_once"),
    Kind("endpoint.test", "A message to try out a webhook endpoint", "administrators", "off", in_app=False),
    Kind("account.locked", "Too many wrong passwords", "person", "at_once", essential=True, webhook=False),
    Kind("account.password_changed", "Another password", "person", "at_once", essential=True, webhook=False),
    Kind("account.second_factor_changed", "Another way of signing in", "person", "at_once", essential=True,
         webhook=False),
    Kind("letter.verify_email", "A link to verify an address", "person", "at_once", True, False, False),
    Kind("letter.reset_password", "A link to a new password", "person", "at_once", True, False, False),
    Kind("letter.invitation", "An invitation to an organization", "person", "at_once", True, False, False),
    Kind("attention.needed", "Something that only an operator can settle", "operators", "off"),
    Kind("notification.undelivered", "An e-mail could not be delivered", "operators", "off", in_app=False),
)  # fmt: skip

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}

ENDPOINT_TYPES = tuple(kind.name for kind in _ALL if kind.webhook and kind.audience != "operators")
"""What organizations' endpoints can be told of."""
CHOOSABLE = tuple(kind.name for kind in _ALL if kind.in_app and kind.audience in ("everybody", "administrators"))
"""What people and organizations may choose how to be told of."""
