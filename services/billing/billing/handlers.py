"""What billing does when auth tells of organizations and people. Every side effect of the consumer is in this file;
what follows when metering closes a month of usage is in `usage_periods`.

A batch of messages is one transaction, and handling one twice changes nothing: an organization that has a subscription
is left alone, of two things said about a member the one that happened later counts, in whatever order they come, and
what ended (an organization, a person) stays ended.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated

from faststream import Context
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsBatchMessage
from structlog.contextvars import bound_contextvars

from aragora.chassis.sql import Connection, Pool
from aragora.contracts import topology
from aragora.contracts.envelope import DomainEvent, Envelope, decode
from aragora.contracts.events import MemberJoined, MemberRemoved, OrganizationCreated, OrganizationDeleted, UserErased
from billing import stripe_kinds, subscriptions, usage_periods
from billing.commands import Cancel, Command, Enroll, NothingToCancel, NotSubscribed
from billing.plans import Plans
from billing.subscriptions import queries

Clock = Callable[[], datetime]

FETCH_MESSAGES = 100
FETCH_SECONDS = 0.5


def subscribe(broker: NatsBroker, pool: Pool, clock: Clock) -> None:
    """Listen to auth and metering. What becomes of a failed batch is for `chassis.consume`."""
    consumer, periods = topology.BILLING_ORGANIZATIONS, topology.BILLING_USAGE_PERIODS

    @broker.subscriber(
        "events.auth.*.*",
        stream=JStream(consumer.stream, declare=False),
        durable=consumer.name,
        inbox_prefix=f"{topology.BILLING.inbox_prefix}.".encode(),
        pull_sub=PullSub(batch_size=FETCH_MESSAGES, timeout=FETCH_SECONDS, batch=True),
        title=consumer.name,
        description=consumer.description,
    )
    async def follow_auth(message: Annotated[NatsBatchMessage, Context("message")]) -> None:
        await follow(pool, [one.data for one in message.raw_message], clock())

    @broker.subscriber(
        periods.filter_subjects[0],
        stream=JStream(periods.stream, declare=False),
        durable=periods.name,
        inbox_prefix=f"{topology.BILLING.inbox_prefix}.".encode(),
        pull_sub=PullSub(batch_size=FETCH_MESSAGES, timeout=FETCH_SECONDS, batch=True),
        title=periods.name,
        description=periods.description,
    )
    async def follow_metering(message: Annotated[NatsBatchMessage, Context("message")]) -> None:
        await usage_periods.follow_metering(pool, [one.data for one in message.raw_message], clock())


async def follow(pool: Pool, messages: Sequence[bytes], now: datetime) -> None:
    """Enroll and cancel for the organizations, and note the members, that these messages tell of.

    Raises:
        pydantic.ValidationError, UnknownEventType: one of them is no event of auth. Nothing was done.
    """
    events = [decode(message) for message in messages]
    # In the order of the organizations, so that two batches never wait for each other.
    events.sort(key=lambda one: one[0].subject)
    async with pool.acquire() as connection, connection.transaction():
        known = await subscriptions.load_plans(connection)
        for envelope, event in events:
            with bound_contextvars(correlation_id=envelope.correlationid):
                await _follow(connection, envelope, event, known, now)


async def _follow(connection: Connection, envelope: Envelope, event: DomainEvent, known: Plans, now: datetime) -> None:
    org_id, said = envelope.subject, (envelope.time, envelope.id)
    match event:
        case OrganizationCreated():
            await _execute(connection, envelope, Enroll(), known, now)
            await connection.execute(queries.save_member, org_id, event.owner_id, True, *said)
        case OrganizationDeleted():
            if not await stripe_kinds.end_payments(connection, org_id, now):
                with suppress(NothingToCancel, NotSubscribed):
                    await _execute(connection, envelope, Cancel(at_period_end=False), known, now)
            await connection.execute(queries.close_organization, org_id, envelope.time)
        case MemberJoined() | MemberRemoved():
            joined = isinstance(event, MemberJoined)
            await connection.execute(queries.save_member, org_id, event.user_id, joined, *said)
        case UserErased():
            await connection.execute(queries.hold_members)
            await connection.execute(queries.note_erased, event.user_id, now)
            await connection.execute(queries.erase_member, event.user_id, event.org_ids)
        case _:
            return


async def _execute(connection: Connection, envelope: Envelope, command: Command, known: Plans, now: datetime) -> None:
    await subscriptions.execute(connection, envelope.subject, command, known, now=now, causation_id=envelope.id)
