"""The shapes of what people are told about organizations, and how a refusal is told."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

import asyncpg
from msgspec import Struct
from pydantic import StringConstraints

from aragora.chassis.bodies import invalid
from aragora.chassis.problems import Problem
from aragora.chassis.store import VersionConflict
from aragora.contracts.events import Role
from auth import commands
from auth.commands import Refused
from auth.messages import InvalidMessageToken

OrganizationName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"),
]

_STATUS: Mapping[type[Refused], HTTPStatus] = {
    commands.AccountErased: HTTPStatus.UNAUTHORIZED,
    commands.Stranger: HTTPStatus.FORBIDDEN,
    commands.NotAllowed: HTTPStatus.FORBIDDEN,
    commands.WrongAddress: HTTPStatus.FORBIDDEN,
    commands.NoSuchOrganization: HTTPStatus.NOT_FOUND,
    commands.NotAMember: HTTPStatus.NOT_FOUND,
    commands.NoSuchInvitation: HTTPStatus.NOT_FOUND,
    commands.SeatsUnknown: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The others say that the organization stands otherwise: 409."""
_HEADERS: Mapping[type[Refused], Mapping[str, str]] = {
    commands.AccountErased: {"WWW-Authenticate": 'Bearer realm="aragora"'},
    commands.SeatsUnknown: {"Retry-After": "1"},
}


class Plan(Struct):
    """What the plan says of people. `seats`: for how many members it has room; null is unlimited."""

    name: str
    seats: int | None


class Organization(Struct):
    """An organization, and what one is in it: null for an operator who is no member.

    `members` counts them. `plan` is null for the moment after the creation in which it is not known yet.
    """

    org_id: str
    name: str
    slug: str
    role: Role | None
    created_at: datetime
    members: int
    plan: Plan | None


class Member(Struct):
    """Somebody who belongs to the organization."""

    user_id: str
    name: str | None
    email: str
    role: Role
    joined_at: datetime


class Invitation(Struct):
    """Somebody who may join. `email` is null if the person was erased."""

    invitation_id: str
    email: str | None
    role: Role
    invited_by: str
    created_at: datetime
    expires_at: datetime


def organization(row: asyncpg.Record) -> Organization:
    """From a row of `organization_for` or `organizations_for`."""
    columns = dict(row)
    name, seats = columns.pop("plan_name"), columns.pop("seats")
    return Organization(**columns, plan=None if name is None else Plan(name, seats))


@contextmanager
def refusals_told(token_field: str = "token") -> Iterator[None]:  # noqa: S107 - a field's name
    """Let what the organization refuses leave as problem details, and undo the act on its way.

    `token_field`: the field of the body that the secret of a letter came in.
    """
    try:
        yield
    except InvalidMessageToken as error:
        raise invalid(token_field, str(error)) from error
    except commands.WrongSlug as error:
        raise invalid("slug", str(error)) from error
    except Refused as error:
        status = _STATUS.get(type(error), HTTPStatus.CONFLICT)
        raise Problem(status, str(error), headers=_HEADERS.get(type(error))) from error
    except VersionConflict as error:
        raise Problem(409, "Others are changing this organization; look at it and try again.") from error
