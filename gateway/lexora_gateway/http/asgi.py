"""An exchange as an ASGI application sees it: for all that is not served by the connection itself.

The messages: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import structlog

from lexora_gateway.asgi_types import CERTIFICATE
from lexora_gateway.client_side import ClientGone
from lexora_gateway.errors import bug
from lexora_gateway.request import request_id_of
from lexora_gateway.response import Answer

if TYPE_CHECKING:
    from lexora_gateway.asgi_types import HeaderList, Message, Scope
    from lexora_gateway.http.exchange import Exchange

_log = structlog.get_logger("lexora_gateway")

# What no header may hold (RFC 9110, 5.1 and 5.5): a name is a token, a value has no control characters but tabs.
_UNFIT_NAME = re.compile(rb'[\x00-\x20\x7f-\xff()<>@,;:\\[\]={}"/?]')
_UNFIT_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BODILESS = (204, 304)


class AsgiCall:
    """Runs one request of an ASGI application. A client that leaves is reported to it, not cancelled."""

    def __init__(self, exchange: Exchange, transport: asyncio.Transport) -> None:
        self._exchange = exchange
        self._transport = transport
        # Bytes of the body that are due by its content-length; None when it has none.
        self._due: int | None = None
        self._takes = asyncio.Event()
        self._takes.set()
        exchange.flow.attach(self)
        if exchange.flow.paused:
            self._takes.clear()

    def pause_reading(self) -> None:
        """The client takes nothing: the application waits in `send`."""
        self._takes.clear()

    def resume_reading(self) -> None:
        """The client takes it again."""
        self._takes.set()

    async def run(self, app: Any) -> None:
        """Serve the request; an application that fails or leaves its answer unfinished does no harm to others."""
        exchange = self._exchange
        scope = self._scope()
        request_id = request_id_of(exchange.headers)
        try:
            await app(scope, self._receive, self._send)
            if exchange.is_open:
                raise RuntimeError("the application ended before its answer did")
        except Exception:  # the boundary: a bug must not take the connection's other requests with it
            _log.exception("bug", request_id=request_id, path=scope["path"])
        finally:
            exchange.flow.detach()
        if exchange.is_open and not exchange.started:
            Answer(exchange, request_id).fail(bug(request_id))

    def _scope(self) -> Scope:
        exchange = self._exchange
        path = exchange.path.decode("ascii")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": exchange.version,
            "server": inet(self._transport, "sockname"),
            "client": inet(self._transport, "peername"),
            "scheme": "http" if self._transport.get_extra_info("ssl_object") is None else "https",
            "root_path": "",
            "method": exchange.method.decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": exchange.path,
            "query_string": exchange.query,
            "headers": exchange.pairs,
            "state": {},
            "extensions": {CERTIFICATE: exchange.certificate},
        }

    async def _receive(self) -> Message:
        try:
            body, more = await self._exchange.read()
        except ClientGone:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": more}

    async def _send(self, message: Message) -> None:
        if self._exchange.flow.paused and self._exchange.is_open:
            await self._takes.wait()
        if not self._exchange.is_open:
            return
        if message["type"] == "http.response.start" and not self._exchange.started:
            self._start(message["status"], [(name.lower(), value) for name, value in message.get("headers", ())])
        elif message["type"] == "http.response.body" and self._exchange.started:
            self._body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"the ASGI message {message['type']} is out of turn")

    def _start(self, status: int, headers: HeaderList) -> None:
        for name, value in headers:
            if _UNFIT_NAME.search(name) or _UNFIT_VALUE.search(value):
                raise RuntimeError(f"the header {name!r} of the answer cannot be sent")
        if self._exchange.method != b"HEAD" and status not in _BODILESS:
            self._due = next((int(value) for name, value in headers if name == b"content-length"), None)
        self._exchange.start(status, headers)

    def _body(self, body: bytes, *, more: bool) -> None:
        if self._due is not None:
            self._due -= len(body)
            if self._due < 0 or (self._due and not more):
                raise RuntimeError("the answer is not as long as its content-length")
        self._exchange.write(body)
        if not more:
            self._exchange.end()


def inet(transport: asyncio.Transport, name: str) -> tuple[str, int] | None:
    """Host and port of an end of a connection, if it has them: "peername" or "sockname"."""
    found = transport.get_extra_info(name)
    return (found[0], found[1]) if isinstance(found, tuple) else None
