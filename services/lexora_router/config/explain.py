"""Turns pydantic's findings into messages for people, with hints and without the values."""

import re
from collections.abc import Mapping, Sized
from typing import Any

from lexora_router.config.check import Fault
from lexora_router.config.problems import Path, nearest
from lexora_router.config.section import CROSS_CHECK
from lexora_router.config.shape import Shape, at, leaves

_MESSAGES = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text; put numbers and words like yes or null in quotes",
    "string_too_short": "must not be empty",
    "dict_type": "must be a map: {key: value}",
    "model_type": "must be a map of keys",
    "tuple_type": "must be a list: [a, b]",
}


def explain(fault: Mapping[str, Any], data: Mapping[str, Any]) -> list[Fault]:
    """Return the key paths and messages of one of `ValidationError.errors()`; `data` is what was validated."""
    path: Path = tuple(fault["loc"])
    if path and path[-1] == "[key]":  # pydantic's mark for a bad key of a map
        path = path[:-1]
    if fault["type"] == "default_factory_not_called":  # a default that waits for a key which is reported itself
        return []
    if fault["type"] == "too_short" and fault["ctx"]["actual_length"] < len(_listed(data, path)):
        return []  # its entries are wrong, which is reported itself
    if fault["type"] == CROSS_CHECK:
        return [((*path, *below), message) for below, message in fault["ctx"]["faults"]]
    return [(path, _message(fault, path, data))]


def _message(fault: Mapping[str, Any], path: Path, data: Mapping[str, Any]) -> str:
    kind: str = fault["type"]
    if kind == "extra_forbidden":
        return f"unknown key{_hint_for_key(path)}"
    if kind == "literal_error":
        return _choices(at(path), _value(data, path))
    if kind == "value_error":
        return str(fault["ctx"]["error"])
    if kind == "too_short":
        return "must not be empty"
    if kind == "too_long":
        return f"must have at most {fault['ctx']['max_length']:,} entries"
    return _MESSAGES.get(kind) or re.sub(r"^\w+ should", "must", str(fault["msg"]))


def _hint_for_key(path: Path) -> str:
    parent, key = at(path[:-1]), str(path[-1])
    near = nearest(key, parent.fields) if parent else ""
    if near:
        return f", did you mean {near}?"
    fixed = [known for known, _ in leaves() if "*" not in known]
    other = nearest(key, [known[-1] for known in fixed])
    elsewhere = [known for known in fixed if known[-1] == other]
    return f", did you mean {'.'.join(elsewhere[0])}?" if len(elsewhere) == 1 else ""


def _choices(form: Shape | None, value: object) -> str:
    choices = form.choices if form else ()
    near = nearest(value, choices) if isinstance(value, str) else ""
    return f"must be one of {', '.join(choices)}" + (near and f", did you mean {near}?")


def _listed(data: Any, path: Path) -> Sized:
    found = _value(data, path)
    return found if isinstance(found, list | dict) else [found]


def _value(data: Any, path: Path) -> object:
    for key in path:
        if isinstance(key, int) and isinstance(data, str):
            return data  # one text that stands for a list
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data
