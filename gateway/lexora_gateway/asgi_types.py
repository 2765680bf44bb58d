"""The few ASGI types that the facade uses, and the headers of a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = dict[bytes, bytes]
HeaderList = list[tuple[bytes, bytes]]


def headers_of(scope: Scope) -> Headers:
    """The request's headers by lower-case name; of a repeated one the last."""
    return dict(scope["headers"])
