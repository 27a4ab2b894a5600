"""What was sent to endpoints, and what came back; sending it again, or not at all. `endpoints` says who holds what."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from aragora.chassis.sql import Connection
from notifier import endpoint_answers as shapes
from notifier import payloads, queueing, signatures
from notifier.answers import fields_of
from notifier.endpoints import EndpointDisabled, held, queries

MAX_ATTEMPTS_SHOWN = 100
UNSENT: tuple[shapes.Settled, ...] = ("failed", "skipped")


class UnknownDelivery(LookupError):
    """The endpoint has no such delivery, or none any more: they are kept for 30 days."""


class NotWaiting(ValueError):
    """The delivery does not wait: there is nothing to skip."""


async def read_page(
    connection: Connection,
    org_id: str,
    endpoint_id: str,
    *,
    before: int | None,
    status: shapes.DeliveryStatus | None,
    kind: str | None,
    limit: int,
) -> tuple[list[shapes.Delivery], list[int]]:
    """A page of deliveries, the newest first, and their positions."""
    rows = await connection.fetch(queries.deliveries_page, org_id, endpoint_id, before, status, kind, limit)
    return [shapes.Delivery(**_fields_of(shapes.Delivery, row)) for row in rows], [row["position"] for row in rows]


async def read(connection: Connection, org_id: str, endpoint_id: str, delivery_id: UUID) -> shapes.DeliveryWithAttempts:
    """A delivery, what is sent, and every attempt. Raises `UnknownDelivery`."""
    row = await connection.fetchrow(queries.delivery, org_id, endpoint_id, delivery_id)
    if row is None:
        raise UnknownDelivery("The endpoint has no such delivery.")
    attempts = await connection.fetch(queries.attempts_of, org_id, endpoint_id, delivery_id, MAX_ATTEMPTS_SHOWN)
    tries = [
        shapes.Attempt(**fields_of(shapes.Attempt, each, request_headers=json.loads(each["request_headers"])))
        for each in attempts
    ]
    body = payloads.slack(row["body"]) if row["format"] == "slack" else row["body"]
    shape = shapes.DeliveryWithAttempts
    return shape(**_fields_of(shape, row, body=body, tries=tries))


async def redeliver(connection: Connection, org_id: str, endpoint_id: str, delivery_id: UUID, now: datetime) -> None:
    """Send one again, at once and under the same id, unless it waits anyway.

    Raises:
        UnknownEndpoint: there is none.
        EndpointDisabled: nothing would be sent.
    """
    await _may_redeliver(connection, org_id, endpoint_id)
    done = await connection.execute(queries.redeliver_one, org_id, endpoint_id, now, delivery_id)
    if done != "UPDATE 0":
        await connection.execute(queries.wake_lane, org_id, endpoint_id, now)


async def redeliver_since(
    connection: Connection,
    org_id: str,
    endpoint_id: str,
    now: datetime,
    *,
    statuses: Sequence[shapes.Settled],
    since: datetime,
    until: datetime | None = None,
) -> int:
    """Send again what was queued since a moment, at once, in the old order and under the same ids. How many wait now
    that did not. Raises as `redeliver`.
    """
    await _may_redeliver(connection, org_id, endpoint_id)
    done = await connection.execute(queries.redeliver, org_id, endpoint_id, now, list(statuses), since, until)
    count = int(done.rpartition(" ")[2])
    if count:
        await connection.execute(queries.wake_lane, org_id, endpoint_id, now)
    return count


async def _may_redeliver(connection: Connection, org_id: str, endpoint_id: str) -> None:
    await queueing.wait_for_turn(connection)
    endpoint = await held(connection, org_id, endpoint_id)
    if endpoint["status"] != "enabled":
        raise EndpointDisabled("The endpoint is disabled; enable it first.")


async def skip(connection: Connection, org_id: str, endpoint_id: str, delivery_id: UUID, now: datetime) -> None:
    """Give up what waits; if others wait for it, they go on at once. It can be redelivered.

    Raises:
        UnknownEndpoint, UnknownDelivery: there is none.
        NotWaiting: it is settled.
    """
    endpoint = await held(connection, org_id, endpoint_id)
    first = await connection.fetchval(queries.first_waiting, org_id, endpoint_id)
    done = await connection.execute(queries.skip_delivery, org_id, endpoint_id, delivery_id, now)
    if done == "UPDATE 0":
        await read(connection, org_id, endpoint_id, delivery_id)
        raise NotWaiting("The delivery does not wait; there is nothing to skip.")
    if first == delivery_id and endpoint["status"] == "enabled":
        await connection.execute(queries.wake_lane, org_id, endpoint_id, now)


def _fields_of(shape: type[shapes.Delivery], row: asyncpg.Record, **more: Any) -> dict[str, Any]:
    message_id = signatures.message_id_of(row["event_id"])
    return fields_of(shape, row, type=row["kind"], message_id=message_id, **more)
