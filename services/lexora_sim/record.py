"""What the server saw: counters and the last requests."""

from __future__ import annotations

import base64
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from lexora_sim.settings import SimSettings
from lexora_sim.wire.request import Request

_MAX_PATHS = 64


@dataclass(slots=True, eq=False)
class Record:
    """One request. Instants are of the machine's monotonic clock, in seconds; None = it did not happen."""

    stats: Stats
    number: int
    request: Request
    received: float
    body: bytes  # as much of it as is kept
    body_bytes: int
    connection: int
    started: float | None = None  # the engine took it up
    first_byte: float | None = None  # of the answer
    finished: float | None = None
    disconnect_seen: float | None = None
    status: int | None = None
    completed: bool = False  # the whole answer was written
    aborted: bool = False  # the client left first
    tokens_sent: int = 0
    priority: int = 0
    model: str | None = None
    fault: str | None = None

    def finish(self) -> None:
        """Book the end, once."""
        self.finished = time.monotonic()
        self.request.body = b""  # the record keeps its own, bounded copy
        self.stats.book(self)

    def describe(self) -> dict[str, Any]:
        """Return it as JSON; a body that is not UTF-8 comes as base64."""
        try:
            body, encoding = self.body.decode(), "utf-8"
        except UnicodeDecodeError:
            body, encoding = base64.b64encode(self.body).decode(), "base64"
        return {
            "number": self.number,
            "method": self.request.method,
            "path": self.request.path,
            "query": self.request.query,
            "headers": self.request.headers,
            "body": body,
            "body_encoding": encoding,
            "body_truncated": self.body_bytes > len(self.body),
            "connection": self.connection,
            "received": self.received,
            "started": self.started,
            "first_byte": self.first_byte,
            "finished": self.finished,
            "disconnect_seen": self.disconnect_seen,
            "status": self.status,
            "completed": self.completed,
            "aborted": self.aborted,
            "tokens_sent": self.tokens_sent,
            "priority": self.priority,
            "model": self.model,
            "fault": self.fault,
        }


class Stats:
    """Counters since the start or the last reset; /sim/* is never counted."""

    def __init__(self, settings: SimSettings) -> None:
        self._settings = settings
        self._number = 0
        self.connections = 0
        self.records: deque[Record] = deque()
        self.reset()

    def reset(self) -> None:
        """Zero the counters and forget the requests; open connections stay counted."""
        self.requests = self.aborts = self.completed = self.errors = 0
        self.by_path: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.max_connections = self.connections
        self.records.clear()
        self._bytes = 0

    def received(self, request: Request, connection: int) -> Record:
        """Book a new request."""
        self._number += 1
        body = request.body[: self._settings.keep_body_bytes]
        record = Record(self, self._number, request, time.monotonic(), body, len(request.body), connection)
        if request.path.startswith("/sim/"):
            return record
        path = request.path if request.path in self.by_path or len(self.by_path) < _MAX_PATHS else "other"
        self.by_path[path] += 1
        self.requests += request.method == "POST"
        self.records.append(record)
        self._bytes += len(body)
        while len(self.records) > self._settings.keep_requests or self._bytes > self._settings.keep_total_bytes:
            self._bytes -= len(self.records.popleft().body)
        return record

    def book(self, record: Record) -> None:
        """Book how a request ended; only POSTs count."""
        if record.request.path.startswith("/sim/") or record.request.method != "POST":
            return
        if record.aborted:
            self.aborts += 1
        elif record.completed and record.status == 200:
            self.completed += 1
        else:
            self.errors += 1

    def opened(self) -> None:
        """Book a new connection."""
        self.connections += 1
        self.max_connections = max(self.max_connections, self.connections)
