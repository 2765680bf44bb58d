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
CERTIFICATE = "lexora.certificate"  # an extension of the scope: the names in the client's certificate


def headers_of(scope: Scope) -> Headers:
    """The request's headers by lower-case name; of a repeated one the last."""
    return dict(scope["headers"])


def certificate_of(scope: Scope) -> tuple[str, ...]:
    """The names in the client's certificate, as this package's own server has verified them."""
    names: tuple[str, ...] = (scope.get("extensions") or {}).get(CERTIFICATE, ())
    return names
