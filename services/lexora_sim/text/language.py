"""The language: the next token is a pure function of all token ids so far and the seed.

Because only the ids decide, a generation cut at any token and continued from its ids goes on exactly as it would have.
"""

from __future__ import annotations

from array import array
from typing import Protocol
from zlib import crc32

from lexora_sim.text.vocabulary import EOS, FIRST_GENERATED, VOCABULARY

_MASK = 0xFFFFFFFF
_FOLLOW = VOCABULARY.follow
_WORDS, _JAPANESE, _SPLIT = VOCABULARY.words, VOCABULARY.japanese, VOCABULARY.split


class Source(Protocol):
    """Where a sequence takes its tokens from."""

    def next(self, *, may_end: bool) -> int:
        """Return the next token id, EOS at the end; a source that must end may ignore `may_end`."""


class Language:
    """Free text. `ids` is the prompt, `seed` any integer, `natural_length` the least tokens before the end."""

    def __init__(self, ids: list[int], seed: int, natural_length: int) -> None:
        run = _generated_tail(ids)
        prompt = len(ids) - run
        base = crc32(_pack(ids[:prompt]), crc32(seed.to_bytes(16, "little", signed=True)))
        self._end = natural_length + mix(base) % max(1, natural_length // 4)
        self._state = crc32(_pack(ids[prompt:]), base)
        self._count = run
        self._last = ids[-1] if ids else EOS

    def next(self, *, may_end: bool) -> int:
        """Return the next token id; EOS once the natural length is reached and `may_end`."""
        token = _FOLLOW.get(self._last, 0)
        if not token:
            if may_end and self._count >= self._end:
                return EOS
            token = _pick(mix(self._state))
        self._state = crc32(token.to_bytes(4, "little"), self._state)
        self._count += 1
        self._last = token
        return token


class Forced:
    """A given text, as structured output or tool arguments: its tokens, then EOS."""

    def __init__(self, ids: list[int]) -> None:
        self._ids = iter(ids)

    def next(self, *, may_end: bool) -> int:
        """Return the next token id, EOS at the end whatever `may_end` says: a grammar allows nothing else."""
        return next(self._ids, EOS)


def mix(value: int) -> int:
    """Spread 32 bits over 32 bits (crc32 alone is linear)."""
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & _MASK
    value = ((value ^ (value >> 15)) * 0x846CA68B) & _MASK
    return value ^ (value >> 16)


def _pick(value: int) -> int:
    kind, rest = value % 100, value // 100
    if kind < 86:
        return _WORDS[rest % len(_WORDS)]
    if kind < 95:
        return _JAPANESE[rest % len(_JAPANESE)]
    return _SPLIT[rest % len(_SPLIT)]


def _generated_tail(ids: list[int]) -> int:
    count = 0
    for token in reversed(ids):
        if token < FIRST_GENERATED:
            break
        count += 1
    return count


def _pack(ids: list[int]) -> bytes:
    return array("I", ids).tobytes()
