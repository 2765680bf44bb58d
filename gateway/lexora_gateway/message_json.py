"""Messages of the contract as JSON objects, by the proto names of their fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message


def as_json(message: Message) -> dict[str, Any]:
    """Every field, set or not: numbers as numbers, maps as objects with sorted keys.

    Optional ones that are absent are None; enums are words: BREAKER_STATE_HALF_OPEN is `half_open`, an unset one `unknown`.
    Durations are seconds.
    """
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
    if field.enum_type is not None:
        return _word(field.enum_type, value)
    if kind is None:
        return value
    return value.ToTimedelta().total_seconds() if kind.full_name == "google.protobuf.Duration" else as_json(value)


def _word(enum: Any, number: int) -> str:
    """The value's name without what all names of its enum begin with."""
    if number == 0 or number not in enum.values_by_number:
        return "unknown"
    prefix: str = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(enum.values_by_number[number].name.removeprefix(prefix).lower())
