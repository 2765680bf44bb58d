"""Responses that are kept, so that they can be asked for again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

MAX_STORED = 1000


@dataclass(frozen=True, slots=True)
class Stored:
    """One response, its last event's number, and the input that it was made from."""

    response: dict[str, Any]
    number: int
    given: Any


class ResponseStore:
    """The responses that were made last, by id; the oldest one makes room."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Stored] = OrderedDict()

    def keep(self, body: dict[str, Any], response: dict[str, Any], number: int) -> None:
        """Keep a response, unless its request says not to."""
        if body.get("store") is False:
            return
        self._kept[response["id"]] = Stored(response, number, body.get("input"))
        while len(self._kept) > MAX_STORED:
            self._kept.popitem(last=False)

    def get(self, identity: str) -> Stored | None:
        """The response of an id."""
        return self._kept.get(identity)

    def remove(self, identity: str) -> None:
        """Forget a response that is here."""
        del self._kept[identity]
