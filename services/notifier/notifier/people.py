"""What becomes of what is known of people when they join, leave or are erased. In the caller's transaction."""

from datetime import datetime

from aragora.chassis import sql
from aragora.chassis.sql import Connection
from aragora.contracts.contacts import MemberRole
from notifier.domain import ADMINISTRATORS
from notifier.kinds import KINDS

_OF_ADMINISTRATORS = [kind.name for kind in KINDS.values() if kind.audience == "administrators"]

queries = sql.load("notifier", "sql/people.sql")


async def ask_anew(connection: Connection, org_id: str, now: datetime) -> None:
    """What is known of an organization is not true any more: auth is asked when it is needed next."""
    await connection.execute(queries.change_directory, org_id, now)


async def has_changed(connection: Connection, user_id: str, now: datetime) -> None:
    """What is known of a person is not true any more."""
    await connection.execute(queries.change_directories_of, user_id, now)


async def remove(connection: Connection, org_id: str, user_id: str, now: datetime) -> None:
    """Somebody belongs to an organization no longer: nothing of it reaches them, and what they chose is forgotten."""
    await connection.execute(queries.drop_contact, org_id, user_id)
    await connection.execute(queries.drop_choices, org_id, user_id)
    await connection.execute(queries.drop_mail, org_id, user_id)
    await ask_anew(connection, org_id, now)


async def change_role(connection: Connection, org_id: str, user_id: str, role: MemberRole, now: datetime) -> None:
    """Somebody may do more or less in an organization: mail for its owners and admins waits for nobody else."""
    if role not in ADMINISTRATORS:
        await connection.execute(queries.drop_mail_about, org_id, user_id, _OF_ADMINISTRATORS)
    await ask_anew(connection, org_id, now)


async def close(connection: Connection, org_id: str, now: datetime) -> None:
    """An organization is closed: nobody is told of it any more, and its endpoints are gone."""
    await connection.execute(queries.close_directory, org_id, now)
    for statement in (
        queries.drop_contacts_of, queries.drop_choices_of, queries.drop_endpoints_of, queries.drop_unaddressed_of,
        queries.drop_mail_of,
    ):  # fmt: skip
        await connection.execute(statement, org_id)


async def erase(connection: Connection, user_id: str, now: datetime) -> None:
    """Nothing is left of a person but their id: in what tells that they were erased, and in what was said to others.

    That is this service's events, and what endpoints were sent about a limit or a budget of the person's.
    """
    await connection.execute(queries.note_erased, user_id, now)
    for statement in (
        queries.erase_contacts, queries.erase_choices, queries.erase_reads, queries.erase_marks, queries.erase_mail,
        queries.erase_alerts, queries.erase_from_alerts,
    ):  # fmt: skip
        await connection.execute(statement, user_id)
