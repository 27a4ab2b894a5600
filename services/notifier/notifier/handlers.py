"""What the notifier hears on the bus. Every side effect of its subscribers is in this file.

A batch of messages is one transaction, and handling one twice changes nothing: what is queued already falls away.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from faststream import Context
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsBatchMessage

from aragora.chassis.sql import Connection, Pool
from aragora.contracts import topology
from aragora.contracts.envelope import DomainEvent, Envelope, decode
from aragora.contracts.events import (
    PLATFORM,
    EmailVerificationRequested,
    EmailVerified,
    MemberInvited,
    MemberRemoved,
    OrganizationDeleted,
    PasswordResetRequested,
    RoleChanged,
    UserErased,
)
from notifier import metrics, people, queueing, wording
from notifier.queueing import Letter, Told

Clock = Callable[[], datetime]

FETCH_MESSAGES = 200
FETCH_SECONDS = 0.1
"""A batch is handled when it is full, or after so long: it is a part of how late somebody is told."""
FETCH_PEOPLE_SECONDS = 0.5


def subscribe(broker: NatsBroker, pool: Pool, clock: Clock) -> None:
    """Listen to all services. What becomes of a failed batch is for `chassis.consume`."""
    told, known = topology.NOTIFIER_EVENTS, topology.NOTIFIER_PEOPLE

    @broker.subscriber(
        "events.*.*.*",
        stream=JStream(told.stream, declare=False),
        durable=told.name,
        inbox_prefix=f"{topology.NOTIFIER.inbox_prefix}.".encode(),
        pull_sub=PullSub(batch_size=FETCH_MESSAGES, timeout=FETCH_SECONDS, batch=True),
        title=told.name,
        description=told.description,
    )
    async def follow_events(message: Annotated[NatsBatchMessage, Context("message")]) -> None:
        await follow(pool, [one.data for one in message.raw_message], clock())

    @broker.subscriber(
        "events.auth.*.*",
        stream=JStream(known.stream, declare=False),
        durable=known.name,
        inbox_prefix=f"{topology.NOTIFIER.inbox_prefix}.".encode(),
        pull_sub=PullSub(batch_size=FETCH_MESSAGES, timeout=FETCH_PEOPLE_SECONDS, batch=True),
        title=known.name,
        description=known.description,
    )
    async def follow_auth(message: Annotated[NatsBatchMessage, Context("message")]) -> None:
        await follow_people(pool, [one.data for one in message.raw_message], clock())


async def follow(pool: Pool, messages: Sequence[bytes], now: datetime) -> None:
    """Queue what these messages tell of: alerts, e-mail, webhooks.

    Raises:
        pydantic.ValidationError, UnknownEventType: one of them is no event. Nothing was done.
    """
    letters: list[Letter] = []
    told: list[Told] = []
    for envelope, event in map(decode, messages):
        letter = _letter(envelope, event)
        if letter is not None:
            letters.append(letter)
        elif (notice := wording.notice_of(event)) is not None:
            org_id, event_id = envelope.subject, UUID(envelope.id)
            told.append(Told(org_id=org_id, event_id=event_id, occurred_at=envelope.time, notice=notice))
    async with pool.acquire() as connection, connection.transaction():
        await queueing.wait_for_turn(connection)
        await queueing.send_letters(connection, letters, now)
        kinds = await queueing.tell(connection, told, now)
    for kind in kinds:
        metrics.alerts.labels(kind).inc()


def _letter(envelope: Envelope, event: DomainEvent) -> Letter | None:
    user_id: str | None
    match event:
        case EmailVerificationRequested():
            kind, message_id, user_id = "letter.verify_email", event.message_id, event.user_id
        case PasswordResetRequested():
            kind, message_id, user_id = "letter.reset_password", event.message_id, event.user_id
        case MemberInvited():
            kind, message_id, user_id = "letter.invitation", event.invitation_id, None
        case _:
            return None
    return Letter(
        org_id=envelope.subject,
        event_id=UUID(envelope.id),
        kind=kind,
        message_id=message_id,
        user_id=user_id,
        expires_at=event.expires_at,
    )


async def follow_people(pool: Pool, messages: Sequence[bytes], now: datetime) -> None:
    """Forget what these messages make untrue of who belongs where, and whoever was erased.

    Raises:
        pydantic.ValidationError, UnknownEventType: one of them is no event of auth. Nothing was done.
    """
    events = [decode(message) for message in messages]
    async with pool.acquire() as connection, connection.transaction():
        await queueing.wait_for_turn(connection)
        for envelope, event in events:
            await _follow_person(connection, envelope, event, now)


async def _follow_person(connection: Connection, envelope: Envelope, event: DomainEvent, now: datetime) -> None:
    match event:
        case UserErased():
            await people.erase(connection, event.user_id, now)
        case EmailVerified():
            await people.has_changed(connection, event.user_id, now)
        case OrganizationDeleted():
            await people.close(connection, envelope.subject, now)
        case MemberRemoved():
            await people.remove(connection, envelope.subject, event.user_id, now)
        case RoleChanged():
            await people.change_role(connection, envelope.subject, event.user_id, event.role, now)
        case _ if envelope.subject != PLATFORM:
            await people.ask_anew(connection, envelope.subject, now)
