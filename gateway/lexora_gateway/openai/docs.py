"""OpenAPI path items of the plain ASGI endpoints, which FastAPI cannot see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexora_contract.operations import STORED, operation_of
from lexora_gateway.openai.examples import ERROR, POST, STORED_SUMMARIES
from lexora_gateway.openai.header_docs import ANSWER, REFUSAL, REQUEST

if TYPE_CHECKING:
    from collections.abc import Iterable

_OBJECT = {"type": "object", "additionalProperties": True}
_FORM = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "model": {"type": "string"},
        "stream": {"type": "boolean"},
    },
    "required": ["file", "model"],
}

# Where a key or a token may be: see lexora_contract.access.
SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, or a token of your identity provider."},
    "x-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The same, as the Anthropic SDK sends it.",
    },
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key", "description": "The same, as clients of Azure send it."},
}


def path_items(paths: Iterable[str]) -> dict[str, Any]:
    """`{path: {"post": operation}}` with summaries and examples."""
    return {path: {"post": _operation(path)} for path in paths}


def stored_items() -> dict[str, Any]:
    """`{path: {method: operation}}` of stored responses."""
    return {path: {method.lower(): _stored(path, method) for method in row.methods} for path, row in STORED.items()}


def _stored(path: str, method: str) -> dict[str, Any]:
    row = operation_of(path)
    named = {"name": "response_id", "in": "path", "required": True, "schema": {"type": "string"}}
    query = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in row.query]
    return {
        "tags": ["generation"],
        "summary": STORED_SUMMARIES[method, path],
        "operationId": method.lower() + path.replace("/", "_").replace("{", "").replace("}", ""),
        "parameters": [named, *query],
        "responses": {
            "200": {"description": "The answer of the engine that made the response.", "headers": ANSWER},
            "default": {"description": "An error.", "headers": REFUSAL},
        },
    }


def _operation(path: str) -> dict[str, Any]:
    row = operation_of(path)
    summary, tag, request, response = POST.get(path) or (f"`{row.name}` of the model's engine.", "more", None, None)
    form = row.form
    media, schema = ("multipart/form-data", _FORM) if form else ("application/json", _OBJECT)
    return {
        "tags": [tag],
        "summary": summary,
        "operationId": "post" + path.replace("/", "_").replace("-", "_"),
        "parameters": REQUEST,
        "requestBody": {"required": True, "content": {media: _with_example(schema, request)}},
        "responses": {
            "200": {
                "description": "The answer; the engine's own, untouched, where the endpoint is relayed.",
                "headers": ANSWER,
                "content": {"application/json": _with_example(_OBJECT, response)},
            },
            "default": {
                "description": "An error. The engine's own errors keep their status and body.",
                "headers": REFUSAL,
                "content": {"application/json": _with_example(_OBJECT, ERROR)},
            },
        },
    }


def _with_example(schema: dict[str, Any], example: object) -> dict[str, Any]:
    return {"schema": schema} if example is None else {"schema": schema, "example": example}
