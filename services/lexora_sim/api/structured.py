"""What forces the text of an answer: response formats and structured outputs."""

from __future__ import annotations

import json
from array import array
from typing import Any
from zlib import crc32

from lexora_sim.api.errors import bad_request
from lexora_sim.text.pattern import text_of
from lexora_sim.text.pattern_reader import grammar, regex
from lexora_sim.text.schema import instance
from lexora_sim.text.schema_in_prompt import schema_in
from lexora_sim.text.topics import sorted_task

_ANY_OBJECT = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["answer", "count"],
}


_KINDS = ("json", "regex", "choice", "grammar", "json_object")


def forced_text(body: dict[str, Any], prompt: list[int], seed: int) -> str | None:
    """Return the text the request's format calls for, None when it leaves the text free; raises ApiError."""
    wanted = _structured(body)
    number = instance_seed(prompt, seed)
    for kind, value in wanted.items():
        match kind:
            case "choice" if isinstance(value, list) and value:
                return str(value[number % len(value)])
            case "regex" | "grammar" if isinstance(value, str):
                return _patterned(kind, value, number)
            case "json" | "json_object":
                pass
            case _:
                raise bad_request(f"Invalid {kind} in structured_outputs.", "structured_outputs")
    schema = wanted.get("json", _ANY_OBJECT if "json_object" in wanted else None)
    if schema is None:
        schema = _format_schema(body.get("response_format"), body.get("messages"))
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError:
            raise bad_request("the schema is not valid JSON.", "structured_outputs") from None
    if schema is None:
        return None
    task = sorted_task(schema, body.get("messages"))
    return dump(make_instance(schema, number) if task is None else task)


def _structured(body: dict[str, Any]) -> dict[str, Any]:
    """The one kind of structured output that is asked for, if any; `guided_*` are the names of vLLM up to 0.11."""
    own = body.get("structured_outputs")
    given = own if isinstance(own, dict) else {kind: body.get(f"guided_{kind}") for kind in _KINDS}
    wanted = {kind: given[kind] for kind in _KINDS if given.get(kind)}
    if len(wanted) > 1:
        names = ", ".join(wanted)
        raise bad_request(f"You can only use one kind of structured outputs constraint but multiple are specified: {names}")
    return wanted


def _patterned(kind: str, pattern: str, number: int) -> str:
    try:
        root, rules = (regex(pattern), {}) if kind == "regex" else grammar(pattern)
        return text_of(root, rules, number)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"Invalid {kind}: {error}", "structured_outputs") from None


def instance_seed(prompt: list[int], seed: int) -> int:
    """Return the number that picks an instance: the same prompt and seed, the same instance."""
    return crc32(array("I", prompt).tobytes(), seed & 0xFFFFFFFF)


def make_instance(schema: Any, number: int) -> Any:
    """Return an instance of a client's schema; raises ApiError when it is no schema."""
    try:
        return instance(schema, number)
    except (TypeError, ValueError, AttributeError, ZeroDivisionError, OverflowError) as error:
        raise bad_request(f"Invalid JSON schema: {error}") from None


def dump(value: Any) -> str:
    """Return JSON text as a model would write it."""
    return json.dumps(value, ensure_ascii=False)


def _format_schema(wanted: Any, messages: Any) -> Any:
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return schema_in(messages) or _ANY_OBJECT
    if kind == "json_schema":
        holder = wanted.get("json_schema")
        schema = holder.get("schema") if isinstance(holder, dict) else wanted.get("schema")
        if not isinstance(schema, dict):
            raise bad_request("response_format json_schema needs a schema.", "response_format")
        return schema
    raise bad_request("response_format must be text, json_object or json_schema.", "response_format")
