"""A stream that several processes write lines to, without one of them in the middle of another."""

import os
import select

# What is written to a pipe at once, up to so many bytes, is not mixed with what others write (POSIX, write(2)).
AT_ONCE_BYTES = select.PIPE_BUF


class SharedStream:
    """A file descriptor as a sink for text of whole lines. A line that is longer than a pipe takes at once may be mixed."""

    def __init__(self, number: int) -> None:
        self._number = number

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)

    def write(self, text: str) -> int:
        """Write lines, as many at once as stay together. Raises OSError."""
        for piece in pieces(text.encode("utf-8", "replace")):
            left = memoryview(piece)
            while left:
                left = left[os.write(self._number, left) :]
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def pieces(data: bytes) -> list[bytes]:
    """Whole lines, put together up to AT_ONCE_BYTES; a longer line is a piece of its own."""
    found, begin = list[bytes](), 0
    while len(data) - begin > AT_ONCE_BYTES:
        end = data.rfind(b"\n", begin, begin + AT_ONCE_BYTES) + 1
        if not end:
            end = data.find(b"\n", begin) + 1 or len(data)
        found.append(data[begin:end])
        begin = end
    return [*found, data[begin:]] if begin < len(data) else found
