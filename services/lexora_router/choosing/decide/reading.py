"""What a model answered about a task, however it wrapped it up: fences, words around the object, an end that is missing."""

import math
import re
from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from lexora_router.choosing.decide.label import Label

MAX_REASONING = 300
MAX_TEXT = 8000
MAX_OBJECTS = 8  # places where the object may begin
_STRING = r'"((?:[^"\\]|\\.)*+)'
_TASK_TYPE = re.compile(r'"task_type"\s*+:\s*+' + _STRING + '"', re.DOTALL)
_CONFIDENCE = re.compile(r'"confidence"\s*+:\s*+"?(-?\d++(?:\.\d++)?)')
_REASONING = re.compile(r'"reasoning"\s*+:\s*+' + _STRING, re.DOTALL)
_THOUGHTS = "</think>"


class _Choice(msgspec.Struct, gc=False):
    class _Said(msgspec.Struct, gc=False):
        content: str | None = None

    message: _Said


class _Chat(msgspec.Struct, gc=False):
    choices: list[_Choice]


_chat = msgspec.json.Decoder(_Chat)
_object = msgspec.json.Decoder(dict[str, Any])


def answer_text(body: bytes) -> str:
    """The text of a chat completion; empty when there is none."""
    try:
        choices = _chat.decode(body).choices
    except msgspec.DecodeError:
        return ""
    return (choices[0].message.content or "") if choices else ""


def read(text: str, kinds: Collection[str]) -> Label | None:
    """The label that a model's answer holds; None when it holds none of the `kinds`.

    An answer without a confidence is taken for half sure. What the model says beside kind and confidence is for people only.
    """
    if len(text) > MAX_TEXT:
        text = text[-MAX_TEXT:]
    fields = _fields(text.rpartition(_THOUGHTS)[2])
    kind = fields.get("task_type")
    if not isinstance(kind, str) or (known := _known(kind, kinds)) is None:
        return None
    reasoning = fields.get("reasoning")
    return Label(known, _share(fields.get("confidence")), clean(reasoning) if isinstance(reasoning, str) else "", "llm")


def clean(text: str) -> str:
    """A model's words on one line, without control characters, at most MAX_REASONING characters."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * MAX_REASONING])
    line = " ".join(printable.split())
    return line if len(line) <= MAX_REASONING else line[: MAX_REASONING - 3] + "..."


def _fields(text: str) -> dict[str, Any]:
    """The object in the text: the last whole one that has a task_type, else the fields of one that was cut off."""
    whole = [fields for fields in _objects(text) if "task_type" in fields]
    return whole[-1] if whole else _pieces(text)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    ends = [found.end() for found in re.finditer("}", text)][-MAX_OBJECTS:]
    for start in [found.start() for found in re.finditer("{", text)][:MAX_OBJECTS]:
        for end in ends:
            if end > start and (fields := _decoded(text[start:end])) is not None:
                yield fields
                break


def _decoded(text: str) -> dict[str, Any] | None:
    try:
        return _object.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _pieces(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, pattern in (("task_type", _TASK_TYPE), ("confidence", _CONFIDENCE), ("reasoning", _REASONING)):
        if hit := pattern.search(text):
            found[name] = hit[1]
    return found


def _known(kind: str, kinds: Collection[str]) -> str | None:
    """The kind as it is configured; models like to change case and blanks."""
    if kind in kinds:
        return kind
    plain = kind.strip().casefold()
    return next((known for known in kinds if known.casefold() == plain), None)


def _share(value: object) -> float:
    """A confidence from 0 to 1: some models say percent, some a text."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else 0.5
    except (ValueError, OverflowError):
        return 0.5
    if math.isnan(number):
        return 0.5
    return min(max(number / 100 if 1 < number <= 100 else number, 0.0), 1.0)
