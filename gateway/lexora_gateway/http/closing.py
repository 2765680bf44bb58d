"""The end of a connection: what a client is still given to read, and for how long it is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lexora_gateway.http.client_timeouts import StallWatch

if TYPE_CHECKING:
    import asyncio

# Closing on a client that is still sending makes its kernel drop the answer, so what it sends is thrown away for a while.
LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 2.0


class Wire(Protocol):
    """The connection that ends."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport


class Closing:
    """Closes a connection, at once or in a moment, and cuts it off when nothing can be written to it for `write_seconds`.

    `lingers`: the last answer is written, and what still comes is thrown away.
    """

    __slots__ = ("_linger_end", "_linger_left", "_stall", "_wire", "_write_seconds", "lingers")

    def __init__(self, wire: Wire, write_seconds: float) -> None:
        self._wire = wire
        self._write_seconds = write_seconds
        self._linger_left = 0
        self._linger_end: asyncio.TimerHandle | None = None
        self._stall: StallWatch | None = None  # made when the client first falls behind
        self.lingers = False

    def close(self) -> None:
        """Close the connection once all is written."""
        self._wire.transport.close()
        # What is still to be written keeps the connection.
        self.stalls()

    def linger(self) -> None:
        """The last answer is written, and the client may still be sending: it should read the answer first."""
        wire = self._wire
        if wire.transport.is_closing():
            return
        self.lingers = True
        self._linger_left = LINGER_BYTES
        self._linger_end = wire.loop.call_later(LINGER_SECONDS, self.close)
        if wire.transport.can_write_eof():
            wire.transport.write_eof()

    def throw_away(self, count: int) -> None:
        """So many bytes came behind the last request."""
        self._linger_left -= count
        if self._linger_left < 0:
            self.close()

    def stalls(self) -> None:
        """The client does not take what is written, or must take it before the connection is closed."""
        if self._stall is None:
            self._stall = StallWatch(self._wire.loop, self._wire.transport, self._write_seconds)
        self._stall.start()

    def goes_on(self) -> None:
        """The client takes it again."""
        if self._stall is not None:
            self._stall.resume()

    def stop(self) -> None:
        """The connection has ended."""
        if self._linger_end is not None:
            self._linger_end.cancel()
        if self._stall is not None:
            self._stall.stop()
