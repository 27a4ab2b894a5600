"""How a service's answer leaves over HTTP, and how the OpenAPI document learns its shape."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from fastapi import Response
from msgspec import Struct

_ENCODERS = {"number": msgspec.json.Encoder(decimal_format="number"), "string": msgspec.json.Encoder()}


def answer(content: Struct, *, status: int = 200, money: Literal["number", "string"] = "string") -> Response:
    """A JSON answer; `money` says how exact decimals are written."""
    return Response(_ENCODERS[money].encode(content), status, media_type="application/json")


def documented(
    answer_type: Any, description: str, *, status: int = 200, money: Literal["number", "string"] = "string"
) -> dict[int | str, dict[str, Any]]:
    """What to give a route as `responses`, so that the OpenAPI document knows the shape of its answer."""
    content = {"application/json": {"schema": body_schema(answer_type, numbers=money == "number")}}
    return {status: {"description": description, "content": content}}


def body_schema(body_type: Any, *, numbers: bool = False) -> Any:
    """The JSON Schema of a body, without references. `numbers`: exact decimals are numbers in it, else strings."""
    schema, definitions = msgspec.json.schema_components([body_type], ref_template="{name}")
    return _inlined(schema[0], definitions, numbers=numbers)


def _inlined(schema: Any, definitions: Mapping[str, Any], *, numbers: bool) -> Any:
    if isinstance(schema, list):
        return [_inlined(item, definitions, numbers=numbers) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"]], definitions, numbers=numbers)
    if numbers and schema.get("format") == "decimal":
        return {"type": "number"}
    return {key: _inlined(value, definitions, numbers=numbers) for key, value in schema.items()}
