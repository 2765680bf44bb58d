"""What all connections of one server share."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from lexora_gateway.http.client_timeouts import PATIENCE, Patience
from lexora_gateway.http.connections import Connections

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from lexora_gateway.api_route import ApiRoute
    from lexora_gateway.asgi_types import HeaderList
    from lexora_gateway.http.cors import Cors
    from lexora_gateway.http.hosts import Hosts

# Timers of the event loop are exact to a millisecond.
_TICK = 0.001


@dataclass(slots=True)
class Site:
    """The routes that connections serve by themselves, by path (POST), and the ASGI application for all else."""

    app: Any
    routes: Mapping[bytes, ApiRoute] = field(default_factory=dict)
    patience: Patience = PATIENCE
    cors: Cors | None = None
    connections: Connections = field(default_factory=Connections)
    hosts: Hosts | None = None
    max_age: float | None = None  # of a connection, in seconds
    _common: HeaderList = field(default_factory=list)
    _first_lines: dict[int, bytes] = field(default_factory=dict)
    _idle_timer: asyncio.TimerHandle | None = None

    def watch_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on connections that are idle for too long are closed: one timer for all of them."""
        if self._idle_timer is None:
            self._idle_timer = loop.call_later(self.patience.idle, self._close_idle, loop)

    def _close_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        left = self.connections.close_idle_for(self.patience.idle)
        self._idle_timer = loop.call_later(max(left, _TICK), self._close_idle, loop) if self.connections.open else None

    def first_lines(self, status: int, common: HeaderList) -> bytes:
        """A response's status line, and the headers that all responses have: another list each second, because of the date."""
        if common is not self._common:
            self._common = common
            self._first_lines.clear()
        lines = self._first_lines.get(status)
        if lines is None:
            lines = b"HTTP/1.1 %d %b\r\n" % (status, _phrase(status))
            lines += b"".join(b"%b: %b\r\n" % pair for pair in common)
            self._first_lines[status] = lines
        return lines


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
