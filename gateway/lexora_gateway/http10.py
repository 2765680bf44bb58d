"""Answers to clients of HTTP/1.0, which take no chunks and no interim answer (RFC 9112, 6.1; RFC 9110, 10.1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from lexora_gateway.asgi_types import Message, Receive, Scope, Send


def without_chunks(app: Any, cycle: RequestResponseCycle) -> Any:
    """`app`, whose answers without a length end with the connection."""
    cycle.waiting_for_100_continue = False

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        until_close = False

        async def sending(message: Message) -> None:
            nonlocal until_close
            if message["type"] == "http.response.start":
                until_close = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
                if until_close:
                    cycle.chunked_encoding = False
            elif until_close:
                # Each piece is as long as it is.
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, sending)

    return answering
