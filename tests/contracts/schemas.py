"""A JSON Schema of each event that crosses a boundary, and its canonical example."""

import inspect
import json
from pathlib import Path
from typing import Any

import msgspec

from aragora.contracts import events, usage
from aragora.contracts.envelope import DomainEvent, Envelope, event_types

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "libs/contracts/aragora/contracts/examples"

NATIVE = "UsageEvent"
"""The one contract that is no CloudEvent: the native form of usage, for HTTP."""
EVENTS_MODULE = events.__name__


def schemas() -> dict[str, dict[str, Any]]:
    """A JSON Schema of each event that crosses a boundary, by its type."""
    return {
        NATIVE: _usage_schema(usage.UsageEvent, org="org_id"),
        usage.USAGE_RECORDED: _usage_schema(usage.UsageRecorded, org="subject"),
        **{
            name: _event_schema(event)
            for name, event in sorted(event_types().items())
            if event.__module__.startswith(f"{EVENTS_MODULE}.")  # tests declare events of their own
        },
    }


def _event_schema(event: type[DomainEvent]) -> dict[str, Any]:
    schema = Envelope.model_json_schema()
    schema["title"] = event.__name__
    schema["description"] = inspect.getdoc(event)
    fields = event.model_json_schema(mode="serialization")
    fields = _inlined(fields, fields.pop("$defs", {}))
    schema["properties"] |= {"type": {"const": event.type_name}, "data": fields}
    schema["required"].append("specversion")
    return schema


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema without references, and open: producers refuse unknown fields, consumers ignore them."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        said = {name: value for name, value in schema.items() if name != "$ref"}
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")] | said
    return {
        name: _inlined(value, definitions)
        for name, value in schema.items()
        if not (name == "additionalProperties" and value is False)
    }


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


def example(name: str) -> dict[str, Any]:
    """The canonical example of a type."""
    found: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text())
    return found
