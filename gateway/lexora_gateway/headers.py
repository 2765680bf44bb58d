"""Response headers: those of the engine, and which backend answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexora_contract.answer import hops_text
from lexora_contract.words import auto_text
from lexora_gateway.rate_headers import PREFIX, rate_limit_headers

if TYPE_CHECKING:
    from lexora_contract.answer import Choice, Headers, Receipt
    from lexora_gateway.asgi_types import HeaderList

# What the connection or the facade itself decides.
_RESERVED = frozenset(
    (
        "connection",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-lexora-attempts",
        "x-lexora-backend",
        "x-lexora-explain",
        "x-lexora-fallback",
        "x-lexora-model",
        "x-lexora-resumed",
        "x-request-id",
    )
)
# Attempts are few; their texts are made once.
_NUMBERS = tuple(str(number).encode() for number in range(64))


def passthrough_headers(headers: Headers, receipt: Receipt | None = None) -> HeaderList:
    """The engine's end-to-end headers, without those that are not its business and those that no server could send.

    Its rate limits are left out where `receipt` has the client's own.
    """
    limited = receipt is not None and receipt.rate_limit is not None
    return [
        (name.encode(), value.encode())
        for name, value in headers
        if _is_fit(name, value) and not (limited and name.lower().startswith(PREFIX))
    ]


def receipt_headers(receipt: Receipt) -> HeaderList:
    """x-lexora-backend, -attempts, -fallback, -resumed, -model and x-ratelimit-*, as far as the receipt has them."""
    found: HeaderList = []
    backend = receipt.backend
    if backend and backend.isprintable():
        found.append((b"x-lexora-backend", backend.encode()))
    attempts = receipt.attempts
    if attempts > 0:
        found.append((b"x-lexora-attempts", number(attempts)))
    if receipt.hops and (fallback := hops_text(receipt.hops)).isprintable():
        found.append((b"x-lexora-fallback", fallback.encode()))
    resumed = receipt.resumed
    if resumed and resumed.isprintable():
        found.append((b"x-lexora-resumed", resumed.encode()))
    if receipt.auto is not None:
        found.append((b"x-lexora-model", _auto(receipt.auto)))
    if receipt.rate_limit is not None:
        found += rate_limit_headers(receipt.rate_limit)
    return found


def _auto(auto: Choice) -> bytes:
    """The model that was chosen for `auto`: names are percent-encoded where need be."""
    return auto_text(auto.model, auto.task_type, auto.confidence, auto.by).encode()


def number(value: int) -> bytes:
    """Decimal digits of a whole number that is not negative."""
    return _NUMBERS[value] if value < len(_NUMBERS) else b"%d" % value


def media_type(content_type: str, default: bytes) -> bytes:
    """A content type as header value; `default` when it is empty or cannot be sent."""
    return content_type.encode() if content_type and content_type.isprintable() else default


def _is_fit(name: str, value: str) -> bool:
    lower = name.lower()
    # Which pages may call the gateway is not the engine's to say.
    ours = lower in _RESERVED or lower.startswith("access-control-")
    return not ours and _is_token(name) and value.isprintable()


def _is_token(name: str) -> bool:
    return name.isascii() and name.replace("-", "").replace("_", "").isalnum()
