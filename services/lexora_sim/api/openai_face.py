"""What chat and completion answers have in common: their envelope, and how their streams end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from lexora_sim.api.generation import DONE, Choice, failure_events
from lexora_sim.api.sampling import Sampling
from lexora_sim.api.usage import short_usage

encode = msgspec.json.encode


@dataclass(slots=True, kw_only=True)
class OpenAiFace:
    """One answer, streamed or whole."""

    identity: str
    created: int
    model: str
    fingerprint: str
    choices: list[Choice]
    sampling: Sampling
    _prefix: bytes = b""

    def closing(self) -> Iterable[bytes]:
        """Say the usage when asked to, then the end."""
        if self.sampling.include_usage:
            usage = encode(short_usage(self.choices))
            yield b'%b],"usage":%b,"system_fingerprint":%b}\n\n' % (self._prefix, usage, encode(self.fingerprint))
        yield DONE

    def failure(self) -> Iterable[bytes]:
        """Say that the engine died."""
        return failure_events()

    def _chunk_prefix(self, kind: str) -> bytes:
        """The beginning of every event, up to its choices."""
        head = encode({"id": self.identity, "object": kind, "created": self.created, "model": self.model})
        return b'data: %b,"choices":[' % head[:-1]

    def _envelope(self, kind: str, choices: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """The unary answer, but for the fields that only one kind has."""
        return {
            "id": self.identity,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": self.fingerprint,
            "usage": usage,
        }
