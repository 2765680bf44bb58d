"""Messages of the contract as JSON objects, by the proto names of their fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message


def as_json(message: Message) -> dict[str, Any]:
    """Every field, set or not: numbers as numbers, maps as objects with sorted keys; optional ones that are absent are None."""
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        nested = kind.fields_by_name["value"].message_type is not None
        return {key: as_json(each) if nested else each for key, each in sorted(value.items())}
    if field.is_repeated:
        return [as_json(each) if kind is not None else each for each in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return as_json(value) if kind is not None else value
