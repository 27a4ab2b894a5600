"""What auth hears and answers on the bus. Every side effect of its subscribers is in this file.

It keeps its own copy of what billing says of seats and API access; and it tells the service that sends letters what is
in one, and how people are reached. A question is never left without an answer: one that cannot be read is refused, and
when the database is away the answer is empty, so that who asks need not wait to know that nothing is known.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
import structlog
from faststream import Context, StreamMessage
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsBatchMessage, NatsMessage

from aragora.chassis import sql, tracing
from aragora.chassis.sealing import Sealer
from aragora.chassis.sql import Pool
from aragora.chassis.transient import log_failure
from aragora.contracts import topology
from aragora.contracts.contacts import READ_CONTACTS, Contact, Contacts, ReadContacts
from aragora.contracts.envelope import decode
from aragora.contracts.events import EntitlementsChanged
from aragora.contracts.messages import READ_MESSAGE, Message, MessageVerdict, ReadMessage
from auth import messages
from auth.acts import Clock

FETCH_MESSAGES = 100
FETCH_SECONDS = 0.5
QUESTIONS_QUEUE = "auth"
"""The group in which the API's processes share the questions on `rpc.auth.*`."""
MAX_CONTACTS = 1000
"""In one answer: the bus takes 1 MiB, and names and addresses are up to some hundred bytes."""
API_ACCESS = "api_access"
"""The feature that API keys need."""

queries = sql.load("auth", "sql/bus.sql")
log = structlog.get_logger()
REFUSED = MessageVerdict(refused="unknown")
NOT_UNDERSTOOD = Contacts(refused="unknown")
_read_message = msgspec.json.Decoder(ReadMessage)
_read_contacts = msgspec.json.Decoder(ReadContacts)


def subscribe(broker: NatsBroker, pool: Pool) -> None:
    """Listen to billing. What becomes of a failed batch is for `chassis.consume`."""
    consumer = topology.AUTH_ENTITLEMENTS

    @broker.subscriber(
        "events.billing.EntitlementsChanged.*",
        stream=JStream(consumer.stream, declare=False),
        durable=consumer.name,
        inbox_prefix=f"{topology.AUTH.inbox_prefix}.".encode(),
        pull_sub=PullSub(batch_size=FETCH_MESSAGES, timeout=FETCH_SECONDS, batch=True),
        title=consumer.name,
        description=consumer.description,
    )
    async def follow_billing(message: Annotated[NatsBatchMessage, Context("message")]) -> None:
        await follow(pool, [one.data for one in message.raw_message])


async def follow(pool: Pool, bodies: Sequence[bytes]) -> None:
    """Keep what these messages say of organizations' plans, unless something newer is known.

    Raises:
        pydantic.ValidationError, UnknownEventType: one of them is no event. Nothing was done.
    """
    latest: dict[str, EntitlementsChanged] = {}
    for envelope, event in map(decode, bodies):
        if isinstance(event, EntitlementsChanged):
            known = latest.get(envelope.subject)
            if known is None or known.revision <= event.revision:
                latest[envelope.subject] = event
    said = latest.values()
    await pool.execute(
        queries.keep_entitlements,
        list(latest),
        [event.revision for event in said],
        [event.plan_name for event in said],
        [event.seats for event in said],
        [event.features.get(API_ACCESS, False) for event in said],
    )


def answer_questions(broker: NatsBroker, pool: Pool, sealer: Sealer, clock: Clock) -> None:
    """Answer on `rpc.auth.message` and `rpc.auth.contacts` as soon as the broker starts.

    API keys are asked about in `key_questions`.
    """

    @broker.subscriber(READ_MESSAGE, queue=QUESTIONS_QUEUE, decoder=_undecoded)
    async def read_message(message: Annotated[NatsMessage, Context("message")]) -> bytes:
        with tracing.continuing(READ_MESSAGE, "SERVER", [message.headers]):
            try:
                return msgspec.json.encode(await _read(message.body))
            except Exception as error:  # noqa: BLE001 - who asks must not wait for an answer
                log_failure(log, "message_not_read", error)
                return b""

    async def _read(question: bytes) -> MessageVerdict:
        try:
            message_id = _read_message.decode(question).message_id
        except (msgspec.MsgspecError, RecursionError):
            return REFUSED
        row = None if "\0" in message_id else await pool.fetchrow(queries.message_to_send, message_id, clock())
        if row is None:
            return REFUSED
        token = messages.token_of(sealer, row["kind"], message_id)
        return MessageVerdict(message=Message(token=token, **row))

    @broker.subscriber(READ_CONTACTS, queue=QUESTIONS_QUEUE, decoder=_undecoded)
    async def read_contacts(message: Annotated[NatsMessage, Context("message")]) -> bytes:
        with tracing.continuing(READ_CONTACTS, "SERVER", [message.headers]):
            try:
                return msgspec.json.encode(await _contacts(pool, message.body))
            except Exception as error:  # noqa: BLE001 - who asks must not wait for an answer
                log_failure(log, "contacts_not_read", error)
                return b""


async def _contacts(pool: Pool, question: bytes) -> Contacts:
    try:
        asked = _read_contacts.decode(question)
    except (msgspec.MsgspecError, RecursionError):
        return NOT_UNDERSTOOD
    named = asked.org_id or asked.user_id
    if named is None or "\0" in named + (asked.after or "") or (asked.org_id and asked.user_id):
        return NOT_UNDERSTOOD
    if asked.org_id:
        rows = await pool.fetch(queries.contacts_in, named, asked.after, MAX_CONTACTS)
    else:
        rows = await pool.fetch(queries.contact_of, named)
    contacts = tuple(
        Contact(
            user_id=row["user_id"], email=row["email"], name=row["name"], verified=row["verified"], role=row["role"]
        )
        for row in rows
    )
    more = len(rows) == MAX_CONTACTS
    return Contacts(org_name=rows[0]["org_name"] if rows else None, contacts=contacts, more=more)


async def _undecoded(message: StreamMessage[object]) -> object:
    return message.body
