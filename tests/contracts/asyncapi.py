"""AsyncAPI 3.0 of each service on the bus."""

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
from contracts.schemas import example, schemas

from aragora.chassis.answering import body_schema
from aragora.contracts import events, topology, usage
from aragora.contracts.alerts import UNREAD_ALERTS, CountUnread, Unread
from aragora.contracts.contacts import READ_CONTACTS, Contacts, ReadContacts
from aragora.contracts.envelope import DomainEvent, event_types, subject_for
from aragora.contracts.keys import KeyVerdict, VerifyKey
from aragora.contracts.messages import READ_MESSAGE, MessageVerdict, ReadMessage
from auth import handlers as auth_handlers
from auth import main as auth
from billing import main as billing
from metering import main as metering
from metering.limit_replies import QUESTIONS
from notifier import main as notifier

METERING_SENDS = (
    events.LimitReached, events.BudgetExceeded, events.UsageAnomalySeen, events.ReservationExpired,
    events.UnpricedUsageSeen, events.UsagePeriodClosed,
)  # fmt: skip
ANSWERED_AS_HTTP = {
    "type": "object",
    "required": ["status", "answer"],
    "properties": {
        "status": {"type": "integer", "description": "As over HTTP"},
        "answer": {"type": "object", "description": "The body that the HTTP route answers with"},
    },
}
known_schemas = cache(schemas)


@dataclass(slots=True)
class Document:
    """What is found of a service, bit by bit."""

    title: str
    version: str
    channels: dict[str, Any] = field(default_factory=dict)
    operations: dict[str, Any] = field(default_factory=dict)
    messages: dict[str, Any] = field(default_factory=dict)
    schemas: dict[str, Any] = field(default_factory=dict)

    def add_question(
        self, address: str, question: type[msgspec.Struct], reply: dict[str, Any], *, queue: str, asks: bool = False
    ) -> None:
        """A question (core request/reply, no stream) that the service answers, or asks of another, and its answer."""
        name, verb = question.__name__, address.rpartition(".")[2]
        self.channels[verb] = {
            "address": address,
            "title": name,
            "description": f"{inspect.getdoc(question)}\n\nRequest/reply; queue group {queue}.",
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        }
        answered = f"{name}Answered"
        self.channels[answered] = {
            "address": None,
            "description": "The reply subject of the request.",
            "messages": {answered: {"$ref": f"#/components/messages/{answered}"}},
        }
        self.operations[verb] = {
            "action": "send" if asks else "receive",
            "channel": {"$ref": f"#/channels/{verb}"},
            "reply": {"channel": {"$ref": f"#/channels/{answered}"}},
        }
        self.messages[name] = {"title": name, "contentType": "application/json", "payload": body_schema(question)}
        self.messages[answered] = {"title": answered, "contentType": "application/json", "payload": reply}

    def add_verification(self, *, asks: bool) -> None:
        """What everybody needs who verifies credentials: revocations, and whose an API key is."""
        queue = auth_handlers.QUESTIONS_QUEUE
        self.add_question(topology.VERIFY_KEY, VerifyKey, body_schema(KeyVerdict), queue=queue, asks=asks)
        for event in _on(topology.REVOCATIONS):
            self.add_event(event, f"A consumer of its own for each process of the API, from the last {_kept()} on.")

    def add_followed(self, consumer: topology.Consumer) -> None:
        """The domain events that a durable consumer brings."""
        for event in _on(consumer.filter_subjects):
            self.add_event(event, f"Durable consumer {consumer.name}.")

    def add_sent(self, sent: Iterable[type[DomainEvent]]) -> None:
        """The domain events that the service publishes."""
        for event in sent:
            self.add_event(event)

    def add_event(self, event: type[DomainEvent], received_by: str | None = None) -> None:
        """A domain event, which the service publishes, or receives."""
        name = event.__name__
        channel = {"$ref": f"#/channels/{name}"}
        if received_by is None:
            self.operations[f"publish{name}"] = {"action": "send", "channel": channel}
        else:
            self.operations[f"follow{name}"] = {"action": "receive", "channel": channel, "description": received_by}
        self.channels[name] = {
            "address": _address(event),
            "title": name,
            "description": f"{inspect.getdoc(event)}\n\nStream {topology.EVENTS.name}, kept for {_kept()}.",
            "parameters": {"org_id": {"description": f"The organization; `{events.PLATFORM}` if it concerns none"}},
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        }
        self.messages[name] = {
            "title": name,
            "contentType": "application/cloudevents+json",
            "payload": {"$ref": f"#/components/schemas/{name}"},
            "examples": [{"payload": example(event.type_name)}],
        }
        self.schemas[name] = known_schemas()[event.type_name]

    def whole(self, description: str) -> dict[str, Any]:
        """The document."""
        return {
            "asyncapi": "3.0.0",
            "info": {"title": self.title, "version": self.version, "description": description},
            "channels": self.channels,
            "operations": self.operations,
            "components": {"messages": self.messages, "schemas": self.schemas},
        }


def auth_on_the_bus() -> dict[str, Any]:
    """AsyncAPI 3.0: questions about keys and letters, what auth hears of plans, and the domain events that it sends."""
    document = Document(auth.TITLE, auth.VERSION)
    document.add_verification(asks=False)
    _add_letters(document, asks=False)
    document.add_followed(topology.AUTH_ENTITLEMENTS)
    document.add_sent(event_types()[name] for name in known_schemas() if name.startswith("aragora.auth."))
    return document.whole("What auth receives from NATS, and what it sends there.")


def billing_on_the_bus() -> dict[str, Any]:
    """AsyncAPI 3.0: the domain events that billing receives, and those that it sends."""
    document = Document(billing.TITLE, billing.VERSION)
    document.add_verification(asks=True)
    document.add_followed(topology.BILLING_ORGANIZATIONS)
    document.add_followed(topology.BILLING_USAGE_PERIODS)
    document.add_sent(event_types()[name] for name in known_schemas() if name.startswith("aragora.billing."))
    return document.whole("What billing receives from NATS JetStream, and what it sends there.")


def metering_on_the_bus() -> dict[str, Any]:
    """AsyncAPI 3.0: usage, questions about limits, and the domain events that metering receives and sends."""
    document = Document(metering.TITLE, metering.VERSION)
    _add_usage(document)
    for verb, question in QUESTIONS.items():
        document.add_question(f"rpc.metering.{verb}", question, ANSWERED_AS_HTTP, queue=topology.LIMITS_QUEUE)
    _add_unread(document, asks=True)
    document.add_verification(asks=True)
    document.add_followed(topology.METERING_ENTITLEMENTS)
    document.add_followed(topology.METERING_ERASURES)
    document.add_sent(METERING_SENDS)
    return document.whole("What metering receives from NATS, and what it sends there.")


def notifier_on_the_bus() -> dict[str, Any]:
    """AsyncAPI 3.0: everything that people are told of, what the notifier asks auth and is asked, and what it says."""
    document = Document(notifier.TITLE, notifier.VERSION)
    _add_unread(document, asks=False)
    _add_letters(document, asks=True)
    document.add_verification(asks=True)
    document.add_followed(topology.NOTIFIER_EVENTS)
    document.add_followed(topology.NOTIFIER_PEOPLE)
    document.add_sent(event_types()[name] for name in known_schemas() if name.startswith("aragora.notifier."))
    return document.whole("What the notifier receives from NATS, and what it sends there.")


def _add_letters(document: Document, *, asks: bool) -> None:
    """What only auth knows, and tells whoever sends letters."""
    queue = auth_handlers.QUESTIONS_QUEUE
    document.add_question(READ_MESSAGE, ReadMessage, body_schema(MessageVerdict), queue=queue, asks=asks)
    document.add_question(READ_CONTACTS, ReadContacts, body_schema(Contacts), queue=queue, asks=asks)


def _add_unread(document: Document, *, asks: bool) -> None:
    document.add_question(UNREAD_ALERTS, CountUnread, body_schema(Unread), queue="notifier", asks=asks)


def _add_usage(document: Document) -> None:
    document.channels["usage"] = {
        "address": "usage.recorded.{partition}",
        "title": "Usage",
        "description": (
            f"{topology.USAGE.description}. Stream {topology.USAGE.name}; a message holds up to "
            f"{topology.MAX_MESSAGE_BYTES} bytes. docs/publishing-on-the-bus.md says how to publish."
        ),
        "parameters": {
            "partition": {
                "description": f"CRC-32 (IEEE) of the UTF-8 organization id, modulo {topology.PARTITIONS}",
                "enum": [str(partition) for partition in range(topology.PARTITIONS)],
            }
        },
        "messages": {"UsageRecorded": {"$ref": "#/components/messages/UsageRecorded"}},
    }
    document.operations["recordUsage"] = {
        "action": "receive",
        "channel": {"$ref": "#/channels/usage"},
        "summary": "Usage is recorded, priced and added up; each id counts once per organization.",
        "description": f"Durable consumers {', '.join(lane.name for lane in topology.METERING_WORKERS)}.",
    }
    document.operations["publishUsage"] = {
        "action": "send",
        "channel": {"$ref": "#/channels/usage"},
        "summary": "Usage accepted over HTTP enters the bus, several requests grouped into one message.",
    }
    document.messages["UsageRecorded"] = {
        "title": "A batch of usage events",
        "contentType": "application/cloudevents-batch+json",
        "headers": {
            "type": "object",
            "properties": {"Nats-Msg-Id": {"type": "string", "description": "The same on every try"}},
        },
        "payload": {"type": "array", "items": {"$ref": "#/components/schemas/UsageRecorded"}, "minItems": 1},
        "examples": [{"payload": [example(usage.USAGE_RECORDED)]}],
    }
    document.schemas["UsageRecorded"] = known_schemas()[usage.USAGE_RECORDED]


def _on(subjects: Sequence[str]) -> list[type[DomainEvent]]:
    return [each for each in event_types().values() if _address(each).replace("{org_id}", "*") in subjects]


def _address(event: type[DomainEvent]) -> str:
    return subject_for(event.type_name, "org_id").removesuffix("org_id") + "{org_id}"


def _kept() -> str:
    return f"{topology.EVENTS.max_age.days} days" if topology.EVENTS.max_age else "ever"
