"""Endpoints: where organizations want to be told, with which secret, and whether just now.

Everything here that changes an endpoint holds it first (`held`), as those do who record what was sent; what queues
something, or takes away where it would be queued, waits for its turn before that.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from aragora.chassis import sql
from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Connection
from aragora.contracts.ids import new_id
from notifier import endpoint_answers as shapes
from notifier import payloads, queueing, signatures
from notifier.domain import Notice

MAX_ENDPOINTS = 20
SECRET_BYTES = 32
TEST_KIND = "endpoint.test"
SHOWN_CHARACTERS = 4

queries = sql.load("notifier", "sql/endpoints.sql")


class UnknownEndpoint(LookupError):
    """The organization has no such endpoint."""


class TooManyEndpoints(ValueError):
    """The organization has as many endpoints as it may: delete one."""


class EndpointDisabled(ValueError):
    """Nothing is sent to a disabled endpoint: enable it first."""


class TestWaits(ValueError):
    """A test message waits already: it is sent after those before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be another; None: that stays."""

    url: str | None = None
    description: str | None = None
    event_types: Sequence[str] | None = None
    format: shapes.Format | None = None


async def create(
    connection: Connection, sealer: Sealer, org_id: str, chosen: Changes, created_by: str, now: datetime
) -> tuple[str, str]:
    """A new endpoint: its id and its secret. In the caller's transaction.

    Raises:
        TooManyEndpoints: there are `MAX_ENDPOINTS`.
    """
    await queueing.wait_for_turn(connection)
    if await connection.fetchval(queries.count_endpoints, org_id) >= MAX_ENDPOINTS:
        raise TooManyEndpoints(f"The organization has {MAX_ENDPOINTS} endpoints already; delete one of them.")
    endpoint_id, secret = f"ep_{new_id().hex}", _new_secret()
    await connection.execute(
        queries.add_endpoint, org_id, endpoint_id, sealer.seal(chosen.url or ""), chosen.description or "",
        chosen.event_types or [], chosen.format or "standard", sealer.seal(secret), now, created_by,
    )  # fmt: skip
    return endpoint_id, secret


async def read_all(connection: Connection, sealer: Sealer, org_id: str) -> list[shapes.Endpoint]:
    """The organization's endpoints, in the order in which they were made."""
    return [_shown(row, sealer) for row in await connection.fetch(queries.endpoints_of, org_id, None)]


async def read(connection: Connection, sealer: Sealer, org_id: str, endpoint_id: str) -> shapes.Endpoint:
    """One of them. Raises `UnknownEndpoint`."""
    row = await connection.fetchrow(queries.endpoints_of, org_id, endpoint_id)
    if row is None:
        raise UnknownEndpoint("The organization has no such endpoint.")
    return _shown(row, sealer)


async def held(connection: Connection, org_id: str, endpoint_id: str) -> asyncpg.Record:
    """The endpoint, which nobody else changes or records an outcome of until the transaction ends.

    Raises:
        UnknownEndpoint: there is none.
    """
    row = await connection.fetchrow(queries.hold_endpoint, org_id, endpoint_id)
    if row is None:
        raise UnknownEndpoint("The organization has no such endpoint.")
    await connection.fetchval(queries.hold_lane, org_id, endpoint_id)
    return row


async def change(
    connection: Connection, sealer: Sealer, org_id: str, endpoint_id: str, changes: Changes, now: datetime
) -> None:
    """Another URL is another chance: what waits is tried there at once. Raises `UnknownEndpoint`."""
    endpoint = await held(connection, org_id, endpoint_id)
    url = None if changes.url is None else sealer.seal(changes.url)
    await connection.execute(
        queries.change_endpoint, org_id, endpoint_id, url, changes.description, changes.event_types, changes.format
    )
    if url is not None:
        await connection.execute(queries.clear_lane, org_id, endpoint_id)
        if endpoint["status"] == "enabled":
            await connection.execute(queries.wake_lane, org_id, endpoint_id, now)


async def rotate_secret(
    connection: Connection, sealer: Sealer, org_id: str, endpoint_id: str, keep: timedelta, now: datetime
) -> str:
    """A new secret; the one before signs beside it for a while. Raises `UnknownEndpoint`."""
    await held(connection, org_id, endpoint_id)
    secret = _new_secret()
    await connection.execute(queries.rotate_secret, org_id, endpoint_id, sealer.seal(secret), now + keep, now)
    return secret


async def delete(connection: Connection, org_id: str, endpoint_id: str) -> None:
    """The endpoint, what waits for it and its log are gone. Raises `UnknownEndpoint`."""
    await queueing.wait_for_turn(connection)
    await held(connection, org_id, endpoint_id)
    await connection.execute(queries.delete_endpoint, org_id, endpoint_id)


async def disable(connection: Connection, org_id: str, endpoint_id: str, now: datetime) -> None:
    """Nothing is sent there until it is enabled. Raises `UnknownEndpoint`."""
    await held(connection, org_id, endpoint_id)
    await connection.execute(queries.disable_endpoint, org_id, endpoint_id, now)
    await connection.execute(queries.still_lane, org_id, endpoint_id)


async def enable(connection: Connection, org_id: str, endpoint_id: str, now: datetime) -> None:
    """What waits is tried at once, as if nothing had ever failed. Raises `UnknownEndpoint`."""
    await held(connection, org_id, endpoint_id)
    await connection.execute(queries.enable_endpoint, org_id, endpoint_id)
    await connection.execute(queries.clear_lane, org_id, endpoint_id)
    await connection.execute(queries.wake_lane, org_id, endpoint_id, now)


async def send_test(connection: Connection, org_id: str, endpoint_id: str, now: datetime) -> shapes.Queued:
    """A message of the type `endpoint.test` to this endpoint alone, after what waits there, which is tried at once.

    Raises:
        UnknownEndpoint: there is none.
        EndpointDisabled: nothing would be sent.
        TestWaits: one is under way.
    """
    await queueing.wait_for_turn(connection)
    endpoint = await held(connection, org_id, endpoint_id)
    if endpoint["status"] != "enabled":
        raise EndpointDisabled("The endpoint is disabled; enable it first.")
    notice = Notice(
        kind=TEST_KIND, severity="info", title="A test", place="/", raw={"endpoint_id": endpoint_id},
        message="Somebody asked for this message to see whether it arrives. It tells of nothing else.",
    )  # fmt: skip
    delivery_id, event_id = new_id(), new_id()
    body = payloads.standard(org_id, event_id, now, notice)
    added = await connection.fetchval(
        queries.add_test, org_id, endpoint_id, delivery_id, event_id, TEST_KIND, body, now
    )
    if added is None:
        raise TestWaits("A test message waits already; it is sent after those before it.")
    await connection.execute(queries.wake_lane, org_id, endpoint_id, now)
    return shapes.Queued(delivery_id, event_id, signatures.message_id_of(event_id))


def shown_url(url: str, form: str) -> str:
    """A URL without what may be a secret in it: whoever has a Slack URL may post there."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")
    if form == "slack":
        return f"{origin}/…{url[-SHOWN_CHARACTERS:]}"
    return origin + parts.path + ("?…" if parts.query else "")


def _new_secret() -> str:
    return signatures.secret_text(secrets.token_bytes(SECRET_BYTES))


def _shown(row: asyncpg.Record, sealer: Sealer) -> shapes.Endpoint:
    url = shown_url(sealer.open(row["url"]), row["format"])
    told: dict[str, Any] = {"url": url, "former_secret_until": row["former_until"]}
    return shapes.Endpoint(**{
        name: told[name] if name in told else row[name] for name in shapes.Endpoint.__struct_fields__
    })  # fmt: skip
