"""How a backend is reached: its origins, its TLS, and what failures mean for a call."""

import ssl
from collections.abc import Callable, Mapping

from yarl import URL

from lexora_router.backends.http1 import ConnectError, Origin, Response, TransportError
from lexora_router.errors import UpstreamUnreachable


class Transport:
    """The connections of one backend, apart from every other's, so that none can starve another."""

    def __init__(self, *, connect_timeout: float, clock: Callable[[], float], ca_file: str | None = None) -> None:
        self._connect_timeout = connect_timeout
        self._clock = clock
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._origins: dict[tuple[str, str, int], Origin] = {}

    def origin(self, base: URL) -> Origin:
        """The connections to the origin of a URL."""
        key = (base.scheme, base.host or "", base.port or 80)
        if key not in self._origins:
            self._origins[key] = Origin(
                key[1],
                key[2],
                tls=self._context() if base.scheme == "https" else None,
                connect_timeout=self._connect_timeout,
                clock=self._clock,
            )
        return self._origins[key]

    async def get(self, url: URL, headers: Mapping[str, str], *, limit: int) -> tuple[int, bytes]:
        """Status and body of a small answer; raises TransportError, also when it is larger than `limit` bytes."""
        response = await self.origin(url).exchange(head("GET", url, headers) + b"\r\n", b"")
        body = b""
        try:
            while data := await response.read():
                body += data
                if len(body) > limit:
                    raise TransportError(f"the answer has more than {limit} bytes")
        finally:
            response.close()
        return response.status, body

    def close(self) -> None:
        """Drop every connection."""
        for origin in self._origins.values():
            origin.close()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=self._ca_file)
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


def head(method: str, url: URL, headers: Mapping[str, str]) -> bytes:
    """Request line and headers, each line ended, without the empty line that ends the head."""
    host = url.raw_authority.rpartition("@")[2]
    lines = [f"{method} {url.raw_path_qs} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")


def failure_of(error: TransportError, backend: str, address: str) -> UpstreamUnreachable:
    """What it means for a call that its endpoint gave no answer."""
    what = f"cannot connect: {error}" if isinstance(error, ConnectError) else str(error)
    return UpstreamUnreachable(f"Backend `{backend}` at {address}: {what}.")


__all__ = ["ConnectError", "Origin", "Response", "Transport", "TransportError", "failure_of", "head"]
