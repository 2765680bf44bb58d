"""Requests in the engine's own bytes become calls."""

from urllib.parse import parse_qsl

from lexora_contract.answer import Headers
from lexora_contract.key_text import without_secrets
from lexora_contract.operations import OPERATIONS, Operation, operation_of, stored_operation
from lexora_contract.port import RawCall
from lexora_router.call import Call
from lexora_router.edge.guard import JSON
from lexora_router.errors import InvalidRequest, NotFound, TooLarge
from lexora_router.payload.fields import Fields
from lexora_router.payload.inspect import inspect_json
from lexora_router.payload.json_object import without_bom
from lexora_router.payload.multipart import inspect_multipart, is_form

MAX_CONTENT_TYPE_LENGTH = 1024
MAX_QUERY_LENGTH = 4096
MAX_HEADER_LENGTH = 4096


def fill_raw(call: Call, raw: RawCall, *, stream: bool, max_body: int) -> None:
    """Read a call in the engine's own bytes; `stream`: it may stream. Raises NotFound, InvalidRequest or TooLarge."""
    if raw.path not in OPERATIONS or raw.method != "POST":
        if stored := stored_operation(raw.method, raw.path):
            _fill_stored(call, raw, *stored)
            return
        raise NotFound(f"{raw.path[:200]} is not an endpoint that is relayed.")
    if len(raw.content_type) > MAX_CONTENT_TYPE_LENGTH:
        raise InvalidRequest(f"content_type takes at most {MAX_CONTENT_TYPE_LENGTH} characters.", "raw.content_type")
    call.content_type = raw.content_type or JSON
    if raw.headers:
        call.headers = _passed(raw, operation_of(raw.path))
    set_body(call, raw.path, call.body, max_body=max_body)
    if call.stream and not stream:
        raise InvalidRequest("The body asks for a stream: call Stream, not Generate.", "stream")


def _fill_stored(call: Call, raw: RawCall, operation: Operation, response_id: str) -> None:
    if len(raw.query) > MAX_QUERY_LENGTH:
        raise InvalidRequest(f"The query takes at most {MAX_QUERY_LENGTH} characters.", "raw.query")
    call.path, call.body, call.method = operation.path, b"", raw.method
    call.response_id, call.resource = response_id, raw.path
    given = parse_qsl(raw.query, keep_blank_values=True)
    call.query = tuple((name, without_secrets(value)) for name, value in given if name.removesuffix("[]") in operation.query)
    call.stream = operation.streams and dict(call.query).get("stream", "").lower() in ("true", "1")
    call.max_tokens = 0  # it has no output that its client would pay for


def set_body(call: Call, path: str, body: bytes, fields: Fields | None = None, *, max_body: int) -> None:
    """Give the call its body, and what that says, which is read from it where it is not handed over."""
    if len(body) > max_body:
        raise TooLarge(f"The body has {len(body)} bytes; at most {max_body} are taken.")
    call.path, call.body = path, body
    operation = operation_of(path)
    if fields is not None:
        pass
    elif operation.form and is_form(call.content_type):
        fields = inspect_multipart(call.content_type, body)
    else:
        call.body = body = without_bom(body)
        fields = inspect_json(path, body)
    call.model = without_secrets(fields.model) if fields.model else ""
    call.stream = fields.stream and operation.streams
    call.include_usage = fields.include_usage
    call.user = call.user or fields.user or ""
    call.prompt_cache_key = call.prompt_cache_key or fields.prompt_cache_key
    call.own_priority = fields.priority is not None
    call.max_tokens = fields.max_tokens
    call.choices = max(fields.n or 1, 1)


def _passed(raw: RawCall, operation: Operation) -> Headers:
    """The headers that the operation has; raises InvalidRequest for a long one."""
    passed = tuple((name, without_secrets(value)) for name, value in raw.headers if name in operation.headers)
    if any(len(value) > MAX_HEADER_LENGTH for _, value in passed):
        raise InvalidRequest(f"A header takes at most {MAX_HEADER_LENGTH} characters.", "raw.headers")
    return passed
