"""Who wants to be told of what, and how: the choices of people and of their organizations."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from aragora.chassis import sql
from aragora.chassis.sql import Connection, Pool
from notifier import answers
from notifier.domain import Choice, chosen
from notifier.kinds import CHOOSABLE, KINDS

ORGANIZATION = ""
"""Whose choice it is where everybody who made none is meant."""

Database: TypeAlias = "Connection | Pool"
"""One connection, or whichever is free."""

queries = sql.load("notifier", "sql/preferences.sql")


class NotChoosable(ValueError):
    """Nobody can choose that. `kind` is which, and the message says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def check(choices: Mapping[str, answers.Choice]) -> None:
    """Whether these can be chosen.

    Raises:
        NotChoosable: one of them cannot.
    """
    for name, choice in choices.items():
        if name not in CHOOSABLE:
            raise NotChoosable(name, f"there is no such choice; there are {', '.join(CHOOSABLE)}")
        if KINDS[name].essential and (choice.email not in (None, "at_once") or choice.in_app is False):
            message = "is too important to be missed: it comes by e-mail at once and is shown, whatever was chosen"
            raise NotChoosable(name, message)


async def choose(
    connection: Connection, org_id: str, user_id: str, choices: Mapping[str, answers.Choice], now: datetime
) -> None:
    """Replace what a person, or the organization, chose for these kinds; what was chosen for others stays."""
    given = list(choices.values())
    await connection.execute(
        queries.choose, org_id, user_id, list(choices), [each.email for each in given],
        [each.in_app for each in given], now,
    )  # fmt: skip


async def read_own(connection: Database, org_id: str, user_id: str) -> answers.Preferences:
    """What a person chose, what their organization did, and what counts."""
    choices = await _choices(connection, org_id, user_id)
    shown = []
    for kind in map(KINDS.__getitem__, CHOOSABLE):
        email, in_app = chosen(kind, user_id, choices)
        shown.append(
            answers.Preference(
                type=kind.name, description=kind.description, audience=kind.audience, essential=kind.essential,
                choice=_choice(choices, user_id, kind.name), in_force=answers.InForce(email, in_app),
                organization=_choice(choices, ORGANIZATION, kind.name),
            )
        )  # fmt: skip
    return answers.Preferences(org_id, user_id, shown)


async def read_of_organization(connection: Database, org_id: str) -> answers.OrganizationPreferences:
    """What an organization chose for its people, and what counts for those of them who chose nothing."""
    choices = await _choices(connection, org_id, ORGANIZATION)
    shown = []
    for kind in map(KINDS.__getitem__, CHOOSABLE):
        email, in_app = chosen(kind, ORGANIZATION, choices)
        shown.append(
            answers.OrganizationPreference(
                type=kind.name, description=kind.description, audience=kind.audience, essential=kind.essential,
                choice=_choice(choices, ORGANIZATION, kind.name), in_force=answers.InForce(email, in_app),
            )
        )  # fmt: skip
    return answers.OrganizationPreferences(org_id, shown)


async def _choices(connection: Database, org_id: str, user_id: str) -> Sequence[Choice]:
    rows = await connection.fetch(queries.choices_of, org_id, user_id)
    return [Choice(row["user_id"], row["kind"], row["email"], row["in_app"]) for row in rows]


def _choice(choices: Sequence[Choice], user_id: str, kind: str) -> answers.Choice:
    for each in choices:
        if (each.user_id, each.kind) == (user_id, kind):
            return answers.Choice(each.email, each.in_app)
    return answers.Choice(None, None)
