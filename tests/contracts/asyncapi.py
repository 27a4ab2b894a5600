"""AsyncAPI 3.0 of each service on the bus."""

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec
from contracts.schemas import example, schemas

from aragora.chassis.answering import body_schema
from aragora.contracts import events, topology, usage
from aragora.contracts.envelope import DomainEvent, event_types, subject_for
from billing import main as billing
from metering import main as metering
from metering.limit_replies import QUESTIONS

METERING_SENDS = (events.LimitReached, events.ReservationExpired, events.UnpricedUsageSeen)
BILLING_SENDS = (
    events.PlanPublished,
    events.SubscriptionStarted,
    events.SubscriptionChanged,
    events.SubscriptionCancelled,
    events.SubscriptionResumed,
    events.EntitlementsChanged,
)


def metering_on_the_bus() -> dict[str, Any]:
    """AsyncAPI 3.0: usage, questions about limits, and the domain events that metering receives and sends."""
    channels: dict[str, Any] = {
        "usage": {
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
    }
    operations: dict[str, Any] = {
        "recordUsage": {
            "action": "receive",
            "channel": {"$ref": "#/channels/usage"},
            "summary": "Usage is recorded, priced and added up; each id counts once per organization.",
            "description": f"Durable consumers {', '.join(lane.name for lane in topology.METERING_WORKERS)}.",
        },
        "publishUsage": {
            "action": "send",
            "channel": {"$ref": "#/channels/usage"},
            "summary": "Usage accepted over HTTP enters the bus, several requests grouped into one message.",
        },
    }
    messages: dict[str, Any] = {
        "UsageRecorded": {
            "title": "A batch of usage events",
            "contentType": "application/cloudevents-batch+json",
            "headers": {
                "type": "object",
                "properties": {"Nats-Msg-Id": {"type": "string", "description": "The same on every try"}},
            },
            "payload": {"type": "array", "items": {"$ref": "#/components/schemas/UsageRecorded"}, "minItems": 1},
            "examples": [{"payload": [example(usage.USAGE_RECORDED)]}],
        }
    }
    for verb, question in QUESTIONS.items():
        _add_question(verb, question, channels, operations, messages)
    found = {"UsageRecorded": schemas()[usage.USAGE_RECORDED]}
    return _asyncapi(
        metering.TITLE, metering.VERSION, "What metering receives from NATS, and what it sends there.",
        channels, operations, messages, found,
        receives=_followed(topology.METERING_ENTITLEMENTS), sends=METERING_SENDS,
        durable=topology.METERING_ENTITLEMENTS.name,
    )  # fmt: skip


def _add_question(
    verb: str,
    question: type[msgspec.Struct],
    channels: dict[str, Any],
    operations: dict[str, Any],
    messages: dict[str, Any],
) -> None:
    """A question of `rpc.metering` (core request/reply, no stream) and its answer."""
    name = question.__name__
    channels[verb] = {
        "address": f"rpc.metering.{verb}",
        "title": name,
        "description": f"{inspect.getdoc(question)}\n\nRequest/reply; queue group {topology.LIMITS_QUEUE}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
    }
    answered = f"{name}Answered"
    channels[answered] = {
        "address": None,
        "description": "The reply subject of the request.",
        "messages": {answered: {"$ref": f"#/components/messages/{answered}"}},
    }
    operations[verb] = {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{verb}"},
        "reply": {"channel": {"$ref": f"#/channels/{answered}"}},
    }
    messages[name] = {"title": name, "contentType": "application/json", "payload": body_schema(question)}
    reply = {
        "type": "object",
        "required": ["status", "answer"],
        "properties": {
            "status": {"type": "integer", "description": "As over HTTP"},
            "answer": {"type": "object", "description": "The body that the HTTP route answers with"},
        },
    }
    messages[answered] = {"title": answered, "contentType": "application/json", "payload": reply}


def billing_on_the_bus() -> dict[str, Any]:
    """AsyncAPI 3.0: the domain events that billing receives, and those that it sends."""
    consumer = topology.BILLING_ORGANIZATIONS
    return _asyncapi(
        billing.TITLE, billing.VERSION, "What billing receives from NATS JetStream, and what it sends there.",
        {}, {}, {}, {}, receives=_followed(consumer), sends=BILLING_SENDS, durable=consumer.name,
    )  # fmt: skip


def _followed(consumer: topology.Consumer) -> list[type[DomainEvent]]:
    return [
        each for each in event_types().values() if _address(each).replace("{org_id}", "*") in consumer.filter_subjects
    ]


def _asyncapi(
    title: str,
    version: str,
    description: str,
    channels: dict[str, Any],
    operations: dict[str, Any],
    messages: dict[str, Any],
    found: dict[str, Any],
    *,
    sends: Sequence[type[DomainEvent]],
    receives: Sequence[type[DomainEvent]] = (),
    durable: str = "",
) -> dict[str, Any]:
    """What a service has of its own, and the domain events that it sends and receives."""
    known = schemas()
    for event in (*receives, *sends):
        name = event.__name__
        channels[name] = {
            "address": _address(event),
            "title": name,
            "description": f"{inspect.getdoc(event)}\n\nStream {topology.EVENTS.name}, kept for {_kept_days()} days.",
            "parameters": {"org_id": {"description": "The organization"}},
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        }
        channel = {"$ref": f"#/channels/{name}"}
        if event in sends:
            operations[f"publish{name}"] = {"action": "send", "channel": channel}
        else:
            description = f"Durable consumer {durable}."
            operations[f"follow{name}"] = {"action": "receive", "channel": channel, "description": description}
        messages[name] = {
            "title": name,
            "contentType": "application/cloudevents+json",
            "payload": {"$ref": f"#/components/schemas/{name}"},
            "examples": [{"payload": example(event.type_name)}],
        }
        found[name] = known[event.type_name]
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version, "description": description},
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": found},
    }


def _address(event: type[DomainEvent]) -> str:
    return subject_for(event.type_name, "org_id").removesuffix("org_id") + "{org_id}"


def _kept_days() -> int:
    return topology.EVENTS.max_age.days if topology.EVENTS.max_age else 0
