"""What may be asked of a subscription, and what is refused. Pure."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Enroll:
    """Give a new organization the default plan. One that is known is left alone."""


@dataclass(frozen=True, slots=True)
class Assign:
    """Give an organization, known or not, a plan now. One that has it already, plainly, is left alone."""

    plan: str


@dataclass(frozen=True, slots=True)
class Change:
    """Another plan, now or at the end of the period. People may choose those that cost nothing."""

    plan: str
    at_period_end: bool = False
    by_operator: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Back to the default plan, now or at the end of the period."""

    at_period_end: bool = True


@dataclass(frozen=True, slots=True)
class Resume:
    """Take back a cancellation or change that is pending."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A plan for some days, then what there was before. Without `days`, as many as the plan says."""

    plan: str
    days: int | None = None


@dataclass(frozen=True, slots=True)
class Comp:
    """A plan free of charge until a moment, then what there was before; without `until`, until further notice."""

    plan: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """To the current version of its plan."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Nothing but what is due."""


@dataclass(frozen=True, slots=True)
class Paid:
    """What somebody pays for, as Stripe says."""

    reference: str
    """Stripe's subscription."""
    plan: str
    """What is in force now."""
    ends_at: datetime | None = None
    """When it ends, if it is cancelled."""
    next_plan: str | None = None
    """What follows at `next_at`, and is paid by the same subscription."""
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reflect:
    """What is paid for is in force, and what is not, no longer. What an operator gave stays while nobody pays.

    `unpaid`: a grace period ran out, which ends an operator's plan too.
    """

    paid: Paid | None
    unpaid: bool = False


Command = Enroll | Assign | Change | Cancel | Resume | Trial | Comp | Move | Settle | Reflect


class Refused(Exception):
    """The subscription does not allow this now. The message says why, and what to do instead."""


class NotSubscribed(Refused):
    """The organization has no subscription. An operator starts one."""


class NotAnOrganization(Refused):
    """The id stands for the platform. Name an organization."""


class AlreadyOnPlan(Refused):
    """The organization has that plan, or its current version, already. Nothing needs to be done."""


class NothingToCancel(Refused):
    """The organization has the default plan. Nothing needs to be done."""


class NothingToResume(Refused):
    """Neither a cancellation nor a change is pending. Choose a plan instead."""


class PaidThroughStripe(Refused):
    """Somebody pays for the plan at Stripe. End that first."""


class PlanNotOffered(Refused):
    """The plan is given by an operator only. Choose a listed one."""


class PaymentNeeded(Refused):
    """The plan costs something. Go through a checkout."""


class InvalidPeriod(Refused):
    """The length of a trial or comp makes no sense. `field` names what to mend."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
