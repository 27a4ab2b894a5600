"""API keys: made, revoked, verified. Of a key's text only the SHA-256 is kept; it has 256 random bits."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from aragora.billing.api_keys import digest_of, new_api_key, prefix_of
from aragora.chassis import sql
from aragora.chassis.sql import Connection
from aragora.contracts.events import ApiKeyIssued, ApiKeyRevoked
from aragora.contracts.ids import new_id
from aragora.contracts.keys import KeyHolder, KeyVerdict
from auth.acts import Act

queries = sql.load("auth", "sql/keys.sql")

MAX_LIVE_KEYS = 100
"""Keys of one organization that are neither revoked nor expired."""
MAX_LIFETIME = timedelta(days=3653)
"""Ten years. A key that should last longer gets no expiry."""
ADMINISTRATORS = ("owner", "admin")

UNKNOWN = KeyVerdict(refused="unknown")


class NotAnAdministrator(Exception):
    """Only owners and admins of the organization make keys. Ask one of them."""


class NoApiAccess(Exception):
    """The organization's plan has no API access. Choose another plan."""


class PlanUnknown(Exception):
    """Billing has not yet said what the organization's plan includes. Try again in a moment."""


class TooManyKeys(Exception):
    """The organization has as many live keys as it may. Revoke one first."""


def stream_of(key_id: str) -> str:
    """The stream of one key."""
    return f"key/{key_id}"


async def issue(
    act: Act, org_id: str, user_id: str, name: str, scopes: Sequence[str], expires_at: datetime | None
) -> tuple[asyncpg.Record, str]:
    """Make a key for the organization, in the name of one of its members. Returns its row, and its text this once.

    Raises:
        NotAnAdministrator, NoApiAccess, PlanUnknown, TooManyKeys: nothing was done.
    """
    # Two statements: what others did while this waited for the row is seen by the second one only.
    await act.connection.fetchval(queries.hold_organization_for_key, org_id)
    standing = await act.connection.fetchrow(queries.may_issue_key, org_id, user_id, act.now)
    if standing is None or standing["role"] not in ADMINISTRATORS:
        raise NotAnAdministrator("Only an owner or admin of the organization may make its API keys; ask one of them.")
    if standing["api_access"] is None:
        raise PlanUnknown("What the organization's plan includes is not known yet; try again in a moment.")
    if not standing["api_access"]:
        raise NoApiAccess("The organization's plan has no API access; an owner or admin can choose another.")
    if standing["live_keys"] >= MAX_LIVE_KEYS:
        raise TooManyKeys(f"The organization has {MAX_LIVE_KEYS} live API keys, the most it may; revoke one first.")
    key_id, text = str(new_id()), new_api_key()
    (row,) = await act.connection.fetch(
        queries.insert_key, org_id, key_id, user_id, name, prefix_of(text), bytes.fromhex(digest_of(text)),
        scopes, act.now, expires_at,
    )  # fmt: skip
    issued = ApiKeyIssued(key_id=key_id, user_id=user_id, scopes=tuple(scopes), expires_at=expires_at)
    await act.say(issued, stream_of(key_id), org_id=org_id)
    await act.note("api_key_issued", user_id=user_id, org_id=org_id, key_id=key_id, scopes=list(scopes))
    return row, text


async def revoke(act: Act, org_id: str, key_id: str, reason: str) -> bool:
    """End a key. Whether it was still good."""
    return await _told(act, await act.connection.fetch(queries.revoke_key, org_id, key_id, act.now), reason) == 1


async def revoke_all(act: Act, *, org_id: str | None = None, user_id: str | None = None, reason: str) -> int:
    """End all keys of an organization, of a person, or of a person in an organization. How many there were.

    Raises:
        ValueError: neither of the two is named.
    """
    if org_id is None and user_id is None:
        raise ValueError("name an organization or a person: nobody revokes every key there is")
    return await _told(act, await act.connection.fetch(queries.revoke_keys, org_id, user_id, act.now), reason)


async def _told(act: Act, revoked: Sequence[asyncpg.Record], reason: str) -> int:
    for row in revoked:
        key_id, org_id = row["key_id"], row["org_id"]
        await act.say(ApiKeyRevoked(key_id=key_id, reason=reason), stream_of(key_id), org_id=org_id)
        await act.note("api_key_revoked", user_id=row["user_id"], org_id=org_id, key_id=key_id, reason=reason)
    return len(revoked)


async def verify(connection: Connection, digest_hex: str, now: datetime) -> KeyVerdict:
    """Whose key has this digest, and may it be used now? Notes the use, to the minute."""
    digest = bytes.fromhex(digest_hex)
    return (await verify_all(connection, [digest], now)).get(digest, UNKNOWN)


async def verify_all(connection: Connection, digests: Sequence[bytes], now: datetime) -> dict[bytes, KeyVerdict]:
    """The verdicts on all keys with one of these digests that are known and good; in one statement."""
    rows = await connection.fetch(queries.verify_keys, digests, now)
    return {row["digest"]: _verdict(row) for row in rows}


def _verdict(row: asyncpg.Record) -> KeyVerdict:
    if not row["api_access"]:
        return KeyVerdict(refused="plan")
    holder = KeyHolder(
        key_id=row["key_id"],
        user_id=row["user_id"],
        org_id=row["org_id"],
        scopes=tuple(row["scopes"]),
        expires_at=row["expires_at"],
    )
    return KeyVerdict(holder=holder)
