"""Responses that the framework writes, in the form of all others."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from lexora_gateway.errors import plain
from lexora_gateway.headers import number

if TYPE_CHECKING:
    from lexora_gateway.asgi_types import HeaderList, Headers, Message, Send

# A longer body that is not read is not worth keeping the connection for.
_UNREAD_BODY_BYTES = 64 * 1024
_REPLACED = (b"content-type", b"content-length")


class FrameworkSend:
    """Adds x-request-id, gives a plain-text error the usual shape, and HEAD no body; closes after a body that is not read."""

    __slots__ = ("_close", "_error", "_head_only", "_request_id", "_send", "started")

    def __init__(self, send: Send, request_id: str, method: str, headers: Headers) -> None:
        self._send = send
        self._request_id = request_id.encode("ascii")
        self._head_only = method == "HEAD"
        self._close = _may_be_left(headers)
        # A response's head that waits for its text.
        self._error: tuple[Message, list[bytes]] | None = None
        self.started = False

    async def __call__(self, message: Message) -> None:
        """ASGI's send."""
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = headers = self._headers(list(message.get("headers", ())))
            if message["status"] >= 400 and _is_text(headers):
                self._error = message, []
            else:
                await self._send(message)
        elif self._error is not None:
            start, pieces = self._error
            pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                await self._failure(start, b"".join(pieces))
        else:
            await self._body(message)

    def _headers(self, headers: HeaderList) -> HeaderList:
        if all(name.lower() != b"x-request-id" for name, _ in headers):
            headers.append((b"x-request-id", self._request_id))
        if self._close:
            headers.append((b"connection", b"close"))
        return headers

    async def _failure(self, start: Message, text: bytes) -> None:
        status = start["status"]
        failure = plain(status, text.decode("utf-8", "replace") or f"{HTTPStatus(status).phrase}.")
        body = failure.body()
        kept = [pair for pair in start["headers"] if pair[0].lower() not in _REPLACED]
        start["headers"] = [(b"content-type", failure.content_type), (b"content-length", number(len(body))), *kept]
        await self._send(start)
        await self._body({"type": "http.response.body", "body": body})

    async def _body(self, message: Message) -> None:
        if self._head_only:
            message["body"] = b""
        await self._send(message)


def _is_text(headers: HeaderList) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"text/plain") for name, value in headers)


def _may_be_left(headers: Headers) -> bool:
    """Whether a body may be long, or not come at all because its client waits for the word to send it."""
    declared = headers.get(b"content-length", b"0")
    long = b"transfer-encoding" in headers or (declared.isdigit() and int(declared) > _UNREAD_BODY_BYTES)
    return long or b"expect" in headers
