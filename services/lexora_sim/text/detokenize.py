"""From token ids back to text, one token at a time."""

from __future__ import annotations

import codecs

from lexora_sim.text.vocabulary import VOCABULARY

_TEXT, _DATA = VOCABULARY.text, VOCABULARY.data
_UTF8 = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Give text as characters become complete; the bytes of a character still open give nothing.

    `prompt` primes it, so that a character cut by the end of the prompt comes out whole.
    """

    def __init__(self, prompt: list[int]) -> None:
        self._decoder = _UTF8("replace")
        self._open = False
        tail = len(prompt)
        while tail and len(prompt) - tail < 4 and _TEXT[prompt[tail - 1]] is None:
            tail -= 1
        for token in prompt[tail:]:
            self.push(token)

    def push(self, token: int) -> str:
        """Return the text that `token` completes, which may be empty."""
        text = _TEXT[token]
        if text is not None and not self._open:
            return text
        text = self._decoder.decode(_DATA[token])
        self._open = bool(self._decoder.getstate()[0])
        return text


class StopScanner:
    """Hold back what may be the start of a stop string, and cut at the first one found."""

    def __init__(self, stops: list[str], *, include: bool) -> None:
        self._stops = stops
        self._include = include
        self._hold = max((len(stop) for stop in stops), default=1) - 1
        self._buffer = ""

    def push(self, text: str, *, check: bool = True) -> tuple[str, str | None]:
        """Return (text that is safe to send, the stop string that was hit)."""
        if not self._stops:
            return text, None
        self._buffer += text
        found = self._first() if check else None
        if found is not None:
            position, stop = found
            end = position + len(stop) if self._include else position
            return self._take(end), stop
        return self._take(max(0, len(self._buffer) - self._hold)), None

    def flush(self) -> str:
        """Return what is still held back, at the end of a sequence."""
        return self._take(len(self._buffer))

    def _first(self) -> tuple[int, str] | None:
        hits = [(self._buffer.find(stop), stop) for stop in self._stops]
        return min((hit for hit in hits if hit[0] >= 0), default=None)

    def _take(self, count: int) -> str:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken
