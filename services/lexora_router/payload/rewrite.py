"""The changes that the router makes to a JSON body; every value that is not named keeps its bytes, and its place."""

import re
from typing import Any

import msgspec

from lexora_router.payload.json_object import WrittenKeys, is_null, object_of

_SALT = WrittenKeys("cache_salt")
_EMPTY = re.compile(rb"\s*+\{\s*+\}")
_encoder = msgspec.json.Encoder()


def with_model(body: bytes, model: str) -> bytes:
    """The same JSON object asking for another model; every other value keeps its bytes."""
    fields: dict[str, Any] = object_of(body)
    fields["model"] = model
    return _encoder.encode(fields)


def with_priority(body: bytes, priority: int) -> bytes:
    """The same JSON object with this priority, in the engine's own polarity; every other value keeps its bytes."""
    fields: dict[str, Any] = object_of(body)
    fields["priority"] = priority
    return _encoder.encode(fields)


def without_priority(body: bytes) -> bytes:
    """The same JSON object without a priority; every other value keeps its bytes."""
    fields = object_of(body)
    fields.pop("priority", None)
    return _encoder.encode(fields)


def with_cache_salt(body: bytes, salt: str) -> bytes:
    """The same JSON object with this `cache_salt` and no other; every other value keeps its bytes."""
    if not _SALT.may_be_in(body) and not _EMPTY.match(body):
        return body.replace(b"{", b'{"cache_salt":"%b",' % salt.encode(), 1)
    fields: dict[str, Any] = object_of(body)
    fields["cache_salt"] = salt
    return _encoder.encode(fields)


def with_stream_usage(body: bytes) -> bytes:
    """The same JSON object with `stream_options.include_usage` true; untouched where the client asked for it already.

    `continuous_usage_stats` is dropped when the client did not ask for usage: it would put usage into every event.
    """
    fields: dict[str, Any] = object_of(body)
    raw = fields.get("stream_options")
    if raw is None:
        separator = b"," if fields else b""
        return body.replace(b"{", b'{"stream_options":{"include_usage":true}' + separator, 1)
    options: dict[str, Any] = {} if is_null(raw) else object_of(bytes(raw), "stream_options")
    if "include_usage" in options and bytes(options["include_usage"]) == b"true":
        return body
    options.pop("continuous_usage_stats", None)
    options["include_usage"] = True
    fields["stream_options"] = options
    return _encoder.encode(fields)
