"""One request and its answer on a connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import uuid4

import msgspec

from lexora_sim.faults.fault import Fault
from lexora_sim.wire.head import head
from lexora_sim.wire.shaper import Pacer, pieces

if TYPE_CHECKING:
    from lexora_sim.record import Record
    from lexora_sim.wire.request import Request

Headers = list[tuple[str, str]]
JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


class Wire(Protocol):
    """The connection that an exchange writes to."""

    writable: bool  # whether the client keeps up with what is written

    def write(self, data: bytes) -> None:
        """Write bytes, unless the connection is closing."""

    def next(self, *, keep_alive: bool) -> None:
        """Go on to the next request, or close after the last byte."""

    def close(self) -> None:
        """Close after what is written went out."""

    def reset(self) -> None:
        """Send RST."""


class Exchange:
    """Write one answer: either `respond`, or `start_stream`, `send` and `finish`.

    After the client left every write is ignored; `on_disconnect` was called at once.
    """

    def __init__(self, connection: Wire, request: Request, record: Record, *, with_request_id: bool) -> None:
        self.request = request
        self.record = record
        self.fault: Fault | None = None
        self.on_disconnect: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.over = False
        self.streaming = False
        self.held = False  # a fault keeps the answer back for ever
        self.request_id = request.headers.get("x-request-id") if with_request_id else None
        self._answer_id = (self.request_id or uuid4().hex) if with_request_id else None
        self._connection = connection
        self._chunked = request.http_version != "1.0"
        self._pacer: Pacer | None = None

    @property
    def writable(self) -> bool:
        """Whether the client keeps up with what is written."""
        return self._connection.writable

    def respond_json(self, status: int, value: Any, headers: Headers | None = None) -> None:
        """Answer with a JSON value, compact and in the given field order."""
        self.respond(status, msgspec.json.encode(value), JSON, headers)

    def respond(
        self, status: int, body: bytes, content_type: str | None, headers: Headers | None = None, *, bare: bool = False
    ) -> None:
        """Answer with a whole body; `bare` leaves out what vLLM's middlewares add."""
        if self.over:
            return
        lines: Headers = [*(headers or []), ("content-length", str(len(body)))]
        if content_type:
            lines.append(("content-type", content_type))
        self._start(status, lines, bare=bare)
        if self.request.method != "HEAD":
            self._write_body(body)
        self._end()

    def start_stream(self, content_type: str = EVENTS) -> None:
        """Send the head of a streamed answer."""
        if self.over:
            return
        self.streaming = True
        self._start(200, [("content-type", content_type)], bare=False)

    def hold_head(self) -> None:
        """Send the head of a whole answer and nothing after it."""
        self.held = True
        self._start(200, [("content-length", "1000"), ("content-type", JSON)], bare=False)

    def cut_body(self) -> None:
        """Send a head and a part of the body it promises, then close."""
        self._start(200, [("content-length", "1000"), ("content-type", JSON)], bare=False)
        self._connection.write(b'{"id":"chatcmpl-')
        self.kill("fin")

    def send(self, event: bytes) -> None:
        """Send one event, one HTTP chunk."""
        if self.over or self.held:
            return
        fault = self.fault
        if fault is None:
            self._connection.write(b"%x\r\n%b\r\n" % (len(event), event) if self._chunked else event)
        elif fault.kind == "split":
            for piece in pieces(_newlines(event, fault.text("newline", "lf")), max(1, fault.number("bytes", 5))):
                self._push(self._chunk(piece))
        else:
            self._push(self._chunk(event))

    def finish(self, *, terminate: bool = True) -> None:
        """End the stream, with the terminating chunk unless `terminate` is false; then the connection goes on or closes."""
        if self.over or self.held:
            return
        if not terminate:
            self.kill("fin")
            return
        if self._chunked:
            self._push(b"0\r\n\r\n")
        self._end()

    def kill(self, how: Literal["rst", "fin"]) -> None:
        """Cut the connection."""
        if self.over:
            return
        self._over()
        if how == "rst":
            self._connection.reset()
        else:
            self._connection.close()

    def disconnected(self) -> None:
        """Note that the client is gone: called by the connection, once."""
        if self.over:
            return
        self.record.aborted = True
        self.record.disconnect_seen = time.monotonic()
        self._over()
        if self.on_disconnect is not None:
            self.on_disconnect()

    def _start(self, status: int, lines: Headers, *, bare: bool) -> None:
        self.record.status = status
        self.record.first_byte = time.monotonic()
        if not bare:
            lines.append(("vary", "Origin"))
            if self._answer_id is not None:
                lines.append(("x-request-id", self._answer_id))
        if not self.request.keep_alive:
            lines.append(("connection", "close"))
        if self.streaming and self._chunked:
            lines.append(("transfer-encoding", "chunked"))
        self._connection.write(head(status, lines))

    def _write_body(self, body: bytes) -> None:
        fault = self.fault
        if fault is not None and fault.kind in ("slow_body", "split"):
            for piece in pieces(body, max(1, fault.number("bytes", 16 if fault.kind == "slow_body" else 5))):
                self._push(piece)
        elif body:
            self._push(body)

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _push(self, data: bytes) -> None:
        fault = self.fault
        if fault is None or fault.kind not in ("slow_body", "split"):
            self._connection.write(data)
            return
        if self._pacer is None:
            gap = fault.number("ms", 20 if fault.kind == "slow_body" else 0) / 1000
            self._pacer = Pacer(self._connection.write, gap)
        self._pacer.push(data)

    def _end(self) -> None:
        if self._pacer is not None:
            self._pacer.finish(self._completed)
        else:
            self._completed()

    def _completed(self) -> None:
        if self.over:
            return
        self.record.completed = True
        self._over()
        self._connection.next(keep_alive=self.request.keep_alive and (self._chunked or not self.streaming))

    def _over(self) -> None:
        self.over = True
        if self._pacer is not None:
            self._pacer.cancel()
        self.record.finish()


def _newlines(event: bytes, style: str) -> bytes:
    if style == "crlf":
        return event.replace(b"\n", b"\r\n")
    if style == "cr":
        return event.replace(b"\n", b"\r")
    return event
