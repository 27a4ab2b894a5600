"""The committed documents that are made from the code: `make api-docs` writes them, test_documents.py compares them.

* `libs/contracts/aragora/contracts/schemas/<type>.json`: a JSON Schema of each event as it travels.
* `docs/api/metering.openapi.json`: metering over HTTP.
* `docs/api/metering.asyncapi.json`: metering on the bus.
"""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from aragora.contracts import events, topology, usage
from aragora.contracts.envelope import DomainEvent, Envelope, event_types, subject_for
from aragora.contracts.events import UnpricedUsageSeen
from metering import main as metering
from metering.settings import Settings

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "libs/contracts/aragora/contracts/examples"
SCHEMAS = ROOT / "libs/contracts/aragora/contracts/schemas"
API = ROOT / "docs/api"

NATIVE = "UsageEvent"
"""The one contract that is no CloudEvent: the native form of usage, for HTTP."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"
EVENTS_MODULE = events.__name__


def documents() -> dict[Path, str]:
    """Every document by the path it is committed under."""
    found = {SCHEMAS / f"{name}.json": {"$schema": DIALECT, **schema} for name, schema in schemas().items()}
    found[API / "metering.openapi.json"] = metering.create_app(Settings(DATABASE_URL="postgresql://")).openapi()
    found[API / "metering.asyncapi.json"] = metering_on_the_bus(sends=(UnpricedUsageSeen,))
    return {path: json.dumps(_clean(document), indent=2, ensure_ascii=False) + "\n" for path, document in found.items()}


def schemas() -> dict[str, dict[str, Any]]:
    """A JSON Schema of each event that crosses a boundary, by its type."""
    return {
        NATIVE: _usage_schema(usage.UsageEvent, org="org_id"),
        usage.USAGE_RECORDED: _usage_schema(usage.UsageRecorded, org="subject"),
        **{
            name: _event_schema(event)
            for name, event in sorted(event_types().items())
            if event.__module__ == EVENTS_MODULE  # tests declare events of their own
        },
    }


def _event_schema(event: type[DomainEvent]) -> dict[str, Any]:
    schema = Envelope.model_json_schema()
    schema["title"] = event.__name__
    schema["description"] = inspect.getdoc(event)
    fields = event.model_json_schema(mode="serialization")
    # Producers refuse unknown fields, consumers ignore them: the schema is for both.
    del fields["additionalProperties"]
    schema["properties"] |= {"type": {"const": event.type_name}, "data": fields}
    schema["required"].append("specversion")
    return schema


def _usage_schema(form: type[msgspec.Struct], *, org: str) -> dict[str, Any]:
    """msgspec knows the types; what `refusal` asks beyond them is added here."""
    (reference,), definitions = msgspec.json.schema_components([form], ref_template="{name}")
    schema: dict[str, Any] = definitions[reference["$ref"]]
    if "data" in schema["properties"]:
        schema["properties"]["data"] = definitions["Usage"]
    fields = schema["properties"].get("data", schema)["properties"]
    schema["properties"][org]["pattern"] = _ecma(usage.ORG_ID.pattern)
    for name in ("cost_usd", "seconds"):
        fields[name]["anyOf"][0]["pattern"] = _ecma(usage.AMOUNT.pattern)
    limits = f"at most {usage.MAX_METADATA_BYTES} bytes, nested at most {usage.MAX_METADATA_DEPTH} levels deep"
    fields["metadata"] = {"type": "object", "description": f"A free JSON object: {limits}"}
    return schema


def _ecma(pattern: str) -> str:
    return "^" + pattern.replace(r"\Z", "$")


def metering_on_the_bus(sends: Sequence[type[DomainEvent]]) -> dict[str, Any]:
    """AsyncAPI 3.0: what metering receives from the bus, and the domain events that it sends there."""
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
    known = schemas()
    found = {"UsageRecorded": known[usage.USAGE_RECORDED]}
    for event in sends:
        name = event.__name__
        channels[name] = {
            "address": subject_for(event.type_name, "org_id").removesuffix("org_id") + "{org_id}",
            "title": name,
            "description": f"{inspect.getdoc(event)}\n\nStream {topology.EVENTS.name}, kept for {_kept_days()} days.",
            "parameters": {"org_id": {"description": "The organization"}},
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        }
        operations[f"publish{name}"] = {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
        messages[name] = {
            "title": name,
            "contentType": "application/cloudevents+json",
            "payload": {"$ref": f"#/components/schemas/{name}"},
            "examples": [{"payload": example(event.type_name)}],
        }
        found[name] = known[event.type_name]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": metering.TITLE,
            "version": metering.VERSION,
            "description": "What metering receives from NATS JetStream, and what it sends there.",
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": found},
    }


def example(name: str) -> dict[str, Any]:
    """The canonical example of a type."""
    found: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text())
    return found


def _kept_days() -> int:
    return topology.EVENTS.max_age.days if topology.EVENTS.max_age else 0


def _clean(node: Any) -> Any:
    """Docstrings without their indentation, which Python 3.13 strips and earlier ones keep."""
    if isinstance(node, list):
        return [_clean(item) for item in node]
    if isinstance(node, dict):
        return {
            name: inspect.cleandoc(value) if name == "description" and isinstance(value, str) else _clean(value)
            for name, value in node.items()
        }
    return node


def main() -> None:
    """Write every document, and remove those of events that are gone."""
    wanted = documents()
    for path in {*SCHEMAS.glob("*.json"), *API.glob("*.json")} - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
