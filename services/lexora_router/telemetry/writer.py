"""Lines to a stream without ever waiting for it: a thread writes what the event loop leaves in a bounded queue.

It takes the secrets out of keys as well, wherever a client has put one: into a request id, a user, the name of a model.
"""

import threading
from collections import deque
from typing import Protocol

from lexora_contract.key_text import without_secrets

MAX_LINES = 20_000
# Lines of this many seconds are written at once: waking a thread for each would cost more than the line.
GATHER_SECONDS = 0.02


class Stream(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> object:
        """Write lines."""

    def flush(self) -> None:
        """Hold nothing back."""


class LineWriter:
    """A file-like sink. When the reader of the stream is too slow, lines are dropped and counted in `dropped`."""

    dropped_in_all = 0  # by every writer of this process

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lexora-log", daemon=True)
        self.dropped = 0
        self._thread.start()

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        LineWriter.dropped_in_all += lines

    def write(self, line: str) -> int:
        """Leave a line to be written; never blocks."""
        if len(self._lines) == MAX_LINES:
            self._drop(1)
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()
        return len(line)

    def flush(self) -> None:
        """Nothing: the thread flushes."""

    def close(self) -> None:
        """Write what is left, then end the thread; waits at most two seconds for a stream that blocks."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._stop.wait(GATHER_SECONDS)
            self._wake.clear()
            self._drain()
        self._drain()

    def _drain(self) -> None:
        batch = []
        while self._lines:
            batch.append(self._lines.popleft())
        if not batch:
            return
        try:
            self._stream.write(without_secrets("".join(batch)))
            self._stream.flush()
        except (OSError, ValueError):
            self._drop(len(batch))
