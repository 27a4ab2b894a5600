"""What is refused, as answers over HTTP: the subscription's rules, and Stripe."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus

from aragora.chassis.bodies import invalid
from aragora.chassis.problems import Problem
from aragora.chassis.store import VersionConflict
from billing import commands
from billing.commands import InvalidPeriod, Refused
from billing.plans import UnknownPlan
from billing.stripe_gateway import StripeAway, StripeNotConfigured, StripeRefused

RETRY_AFTER_SECONDS = 5
_STATUS: Mapping[type[Refused], HTTPStatus] = {
    commands.NotSubscribed: HTTPStatus.NOT_FOUND,
    commands.NotAnOrganization: HTTPStatus.NOT_FOUND,
    commands.PaymentNeeded: HTTPStatus.PAYMENT_REQUIRED,
    commands.PlanNotOffered: HTTPStatus.FORBIDDEN,
}
"""The others say that it cannot be now: 409."""


@contextmanager
def as_problems() -> Iterator[None]:
    """Whatever is refused inside is answered with a problem that says what to do."""
    try:
        yield
    except UnknownPlan as error:
        raise wrong_field("plan", str(error.args[0])) from error
    except InvalidPeriod as error:
        raise wrong_field(error.field, str(error)) from error
    except Refused as error:
        raise Problem(_STATUS.get(type(error), HTTPStatus.CONFLICT), str(error)) from error
    except VersionConflict as error:
        raise Problem(409, "Others are changing this subscription; look at it and try again.") from error
    except StripeNotConfigured as error:
        raise Problem(503, str(error)) from error
    except StripeAway as error:
        message = "Stripe does not answer now. What was asked for may be done in a while: look, before you ask again."
        raise Problem(503, message, headers={"Retry-After": str(RETRY_AFTER_SECONDS)}) from error
    except StripeRefused as error:
        # Not in Stripe's words: they may hold what was asked with.
        raise Problem(409, f"Stripe refuses this ({error.code or error.status}); nothing was changed.") from error


def wrong_field(name: str, message: str) -> Problem:
    """422: a field of the body is not as it must be."""
    return invalid(name, message)
