"""Lax conversions, with the validator's names for what is wrong."""

from __future__ import annotations

from typing import Any

_TRUE = {"true", "1", "yes", "on", "t", "y"}
_FALSE = {"false", "0", "no", "off", "f", "n"}


class Wrong(Exception):
    """A value of the wrong kind: the validator's error type and message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = f"Input should be a valid {message}"


def to_integer(value: Any) -> int:
    """Take integers, whole floats and digits; raises Wrong."""
    if isinstance(value, float) and not value.is_integer():
        raise Wrong("int_from_float", "integer, got a number with a fractional part")
    if isinstance(value, int | float):
        return int(value)
    if not isinstance(value, str):
        raise Wrong("int_type", "integer")
    try:
        return int(value)
    except ValueError:
        raise Wrong("int_parsing", "integer, unable to parse string as an integer") from None


def to_number(value: Any) -> float:
    """Take numbers and digits; raises Wrong."""
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, str):
        raise Wrong("float_type", "number")
    try:
        return float(value)
    except ValueError:
        raise Wrong("float_parsing", "number, unable to parse string as a number") from None


def to_boolean(value: Any) -> bool:
    """Take booleans, 0, 1 and the usual words; raises Wrong."""
    if not isinstance(value, int | float | str):
        raise Wrong("bool_type", "boolean")
    text = str(value).lower()
    if text not in _TRUE | _FALSE:
        raise Wrong("bool_parsing", "boolean, unable to interpret input")
    return text in _TRUE


def to_string(value: Any) -> str:
    """Take strings; raises Wrong."""
    if not isinstance(value, str):
        raise Wrong("string_type", "string")
    return value


def to_list(value: Any) -> list[Any]:
    """Take lists; raises Wrong."""
    if not isinstance(value, list):
        raise Wrong("list_type", "list")
    return value


def to_mapping(value: Any) -> dict[str, Any]:
    """Take objects; raises Wrong."""
    if not isinstance(value, dict):
        raise Wrong("dict_type", "dictionary")
    return value
