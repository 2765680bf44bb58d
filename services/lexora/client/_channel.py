"""What a channel to a router is secured with, and the key that each of its calls carries."""

from collections.abc import Iterable
from typing import Any, TypeVar, cast

import grpc

C = TypeVar("C")
Metadata = tuple[tuple[str, str], ...]


def tls_credentials(ca: str | None = None, cert: str | None = None, key: str | None = None) -> grpc.ChannelCredentials:
    """TLS with PEM files. Without `ca` the authorities that come with grpc are trusted; with `cert` it is shown to the router.

    `key` is that of `cert`; without it, it is in `cert` as well. Raises ValueError, which names the file.
    """
    if cert is None and key is not None:
        raise ValueError(f"the key {key} needs a certificate")
    shown = None if cert is None else _read(cert)
    secret = shown if cert is None or key is None else _read(key)
    return grpc.ssl_channel_credentials(None if ca is None else _read(ca), secret, shown)


def carrying(channel: C, metadata: Metadata) -> C:
    """A channel, blocking or not, whose calls carry some metadata beside their own."""
    return cast("C", _Channel(channel, metadata)) if metadata else channel


class _Channel:
    def __init__(self, channel: Any, metadata: Metadata) -> None:
        self._channel = channel
        self._metadata = metadata

    def unary_unary(self, *given: Any, **named: Any) -> "_Method":
        """As the channel's own."""
        return _Method(self._channel.unary_unary(*given, **named), self._metadata)

    def unary_stream(self, *given: Any, **named: Any) -> "_Method":
        """As the channel's own."""
        return _Method(self._channel.unary_stream(*given, **named), self._metadata)


class _Method:
    def __init__(self, method: Any, metadata: Metadata) -> None:
        self._method = method
        self._metadata = metadata

    def __call__(self, request: Any, *, metadata: Iterable[tuple[str, str]] | None = None, **named: Any) -> Any:
        return self._method(request, metadata=(*(metadata or ()), *self._metadata), **named)

    def future(self, request: Any, *, metadata: Iterable[tuple[str, str]] | None = None, **named: Any) -> Any:
        return self._method.future(request, metadata=(*(metadata or ()), *self._metadata), **named)

    def with_call(self, request: Any, *, metadata: Iterable[tuple[str, str]] | None = None, **named: Any) -> Any:
        return self._method.with_call(request, metadata=(*(metadata or ()), *self._metadata), **named)


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None
    if b"-----BEGIN " not in data:
        raise ValueError(f"{file} is no PEM file")
    return data
