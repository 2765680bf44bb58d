"""A protobuf message as plain data: every field by its proto name, numbers as numbers, durations in seconds, enums as words."""

from collections.abc import Mapping
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message


def as_data(message: Message) -> dict[str, Any]:
    """The whole message, unset fields included, ready for json.dumps; sub-messages that are not set are None."""
    return {field.name: _value(message, cast("FieldDescriptor", field)) for field in message.DESCRIPTOR.fields}


def word(field: FieldDescriptor, number: int) -> str:
    """An enum's value as a word: BACKEND_STATUS_HEALTHY is "healthy", the unspecified one "unknown"."""
    assert field.enum_type is not None
    values = field.enum_type.values_by_number
    if number not in values:
        return str(number)
    name = values[number].name.removeprefix(values[0].name.removesuffix("UNSPECIFIED"))
    return "unknown" if name == "UNSPECIFIED" else name.lower()


def _value(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        assert isinstance(value, Mapping)
        return {key: _single(inner, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_single(field, each) for each in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return value.ToTimedelta().total_seconds() if isinstance(value, Duration) else as_data(value)
    return word(field, value) if field.enum_type is not None else value
