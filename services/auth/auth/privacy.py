"""What auth holds about a person: all of it told, or all of it erased."""

from datetime import datetime

from msgspec import Struct

from aragora.chassis import sql
from aragora.chassis.sql import Connection
from aragora.contracts.events import UserErased
from auth import audit_reading, keys, organizations, revocations
from auth.acts import Act
from auth.audit_reading import AuditEntry
from auth.key_answers import ApiKey, api_key

queries = sql.load("auth", "sql/privacy.sql")

ELSEWHERE = (
    "This is everything that auth holds about you. Your password, second factor and keys are kept hashed or sealed, "
    "and are not in it. What you used is known by your user_id only: read it with GET /api/usage/events?user_id=…, in "
    "each of your organizations."
)


class NoSuchPerson(LookupError):
    """There is, and was, no account with this id."""


class ExportedAccount(Struct):
    """The account."""

    user_id: str
    email: str
    name: str | None
    is_operator: bool
    email_verified_at: datetime | None
    totp_enabled_at: datetime | None
    """Since when signing in needs a code."""
    created_at: datetime


class ExportedMembership(Struct):
    """An organization that the person belongs to, or did until `left_at`."""

    org_id: str
    name: str
    slug: str
    role: str
    joined_at: datetime
    left_at: datetime | None


class ExportedSession(Struct):
    """A time that the person signed in."""

    session_id: str
    org_id: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str | None
    program: str | None
    ended_at: datetime | None
    ended_because: str | None


class ExportedInvitation(Struct):
    """An invitation to the person's address."""

    org_id: str
    org_name: str
    role: str
    created_at: datetime
    expires_at: datetime
    status: str


class ExportedLetter(Struct):
    """A letter to the person's address."""

    kind: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None


class PersonalData(Struct):
    """Everything that auth holds about a person."""

    account: ExportedAccount
    memberships: list[ExportedMembership]
    sessions: list[ExportedSession]
    api_keys: list[ApiKey]
    invitations: list[ExportedInvitation]
    letters: list[ExportedLetter]
    password_resets_requested_at: list[datetime]
    audit: list[AuditEntry]
    """What concerns the person, and what they did."""
    elsewhere: str


async def export(connection: Connection, user_id: str) -> PersonalData:
    """Everything about a person who has an account.

    Raises:
        NoSuchPerson: they have none, or were erased.
    """
    account = await connection.fetchrow(queries.person, user_id)
    if account is None:
        raise NoSuchPerson("There is no such account.")
    email = account["email"]
    return PersonalData(
        ExportedAccount(**account),
        [ExportedMembership(**row) for row in await connection.fetch(queries.memberships_ever, user_id)],
        [ExportedSession(**row) for row in await connection.fetch(queries.sessions_of_person, user_id)],
        [api_key(row) for row in await connection.fetch(queries.keys_of_person, user_id)],
        [ExportedInvitation(**row) for row in await connection.fetch(queries.invitations_to, email)],
        [ExportedLetter(**row) for row in await connection.fetch(queries.letters_to, email)],
        [row["requested_at"] for row in await connection.fetch(queries.reset_requests_for, email)],
        [audit_reading.entry(row, user_id) for row in await connection.fetch(queries.events_of_person, user_id)],
        ELSEWHERE,
    )


async def erase(act: Act, user_id: str) -> None:
    """Erase a person: they leave every organization, nothing of theirs works any more, and nothing tells who they were.

    What they did stays on record under an id that is nobody's. Whoever is erased already is left alone.

    Raises:
        NoSuchPerson: nobody has that id.
        Refused: they are the last owner of an organization with other members; nothing was done.
        VersionConflict: they joined an organization meanwhile; nothing was done.
    """
    person = await act.connection.fetchrow(queries.standing, user_id)
    if person is None:
        raise NoSuchPerson("There is no such account.")
    if person["erased_at"] is not None:
        return
    # Rows are held in the order in which everybody does: requests for letters, the organizations, then the person, then
    # the rest.
    await act.connection.execute(queries.erase_reset_requests, person["email"])
    await act.connection.fetch(queries.hold_organizations_around, user_id, person["email"])
    org_ids = await organizations.leave_all(act, user_id)
    await keys.revoke_all(act, user_id=user_id, reason="user_erased")
    await revocations.end_all(act, user_id, "user_erased")
    erased = await act.connection.fetchrow(queries.erase_user, user_id, act.now)
    if erased is None:
        return  # another request did it while this one waited for the row
    await act.connection.execute(queries.erase_recovery_codes, user_id)
    await act.connection.execute(queries.erase_messages, user_id, erased["email"])
    await act.connection.execute(queries.erase_invitations, erased["email"])
    await act.connection.execute(queries.erase_sessions, user_id)
    await act.say(UserErased(user_id=user_id, org_ids=org_ids), revocations.stream_of(user_id))
    await act.note("user_erased", user_id=user_id)
    await act.connection.execute(queries.erase_events, user_id)  # last: also what was noted just now
