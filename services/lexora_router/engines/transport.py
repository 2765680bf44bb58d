"""How a backend is reached: its origins, and what failures mean for a call."""

import ssl
from collections.abc import Callable, Iterable, Mapping

from yarl import URL

from lexora_contract.content_coding import ContentDecoder, Undecodable, UnknownCoding
from lexora_contract.port import Flow
from lexora_router.config.engine_tls import EngineTls
from lexora_router.engines.content_decoding import coding_of, decoded
from lexora_router.engines.origin import Origin
from lexora_router.engines.response import Body, Response
from lexora_router.engines.tls import EngineSecurity
from lexora_router.engines.transport_errors import ConnectError, InvalidAnswer, LocalShortage, StaleConnection, TransportError
from lexora_router.errors import OutOfResources, UpstreamFailure, UpstreamUnreachable


class Transport:
    """The connections of one backend, apart from every other's, so that none can starve another."""

    def __init__(
        self,
        *,
        connect_timeout: float,
        clock: Callable[[], float],
        security: EngineSecurity | None = None,
    ) -> None:
        self._connect_timeout = connect_timeout
        self._clock = clock
        self.security = security or EngineSecurity(EngineTls())
        self._origins: dict[tuple[str, str, int], Origin] = {}
        self._leaving: list[Origin] = []  # of addresses that are gone, as long as calls run there

    def apart(self) -> "Transport":
        """Another one of the same terms, with connections of its own."""
        return Transport(connect_timeout=self._connect_timeout, clock=self._clock, security=self.security)

    def origin(self, base: URL) -> Origin:
        """The connections to the origin of a URL."""
        key = _key(base)
        if key not in self._origins:
            self._origins[key] = Origin(
                key[1],
                key[2],
                security=self.security if base.scheme == "https" else None,
                connect_timeout=self._connect_timeout,
                clock=self._clock,
            )
        return self._origins[key]

    async def get(self, url: URL, headers: Mapping[str, str], *, limit: int) -> tuple[int, bytes]:
        """Status and body of a small answer; raises TransportError, also when it is larger than `limit` bytes."""
        origin, request = self.origin(url), head("GET", url, headers) + b"\r\n"
        answer = _Small(limit)
        try:
            await (await origin.send(request, b"", answer, Flow())).ended()
        except StaleConnection:
            await (await origin.send(request, b"", answer, Flow())).ended()
        return answer.status, answer.body

    def renew(self, context: ssl.SSLContext) -> None:
        """Make connections with this from now on; idle ones go, and those in use stay."""
        self.security.renew(context)
        for origin in self._origins.values():
            origin.drop_idle()

    def keep_only(self, bases: Iterable[URL]) -> None:
        """Retire what is at none of these addresses: they are no endpoints any more."""
        self._leaving = [origin for origin in self._leaving if origin.open]
        for key in self._origins.keys() - {_key(base) for base in bases}:
            gone = self._origins.pop(key)
            gone.retire()
            self._leaving.append(gone)

    def retire(self) -> None:
        """Drop idle connections now, and each other one when its answer has ended."""
        for origin in self._origins.values():
            origin.retire()

    @property
    def open(self) -> int:
        """Connections there are."""
        return sum(origin.open for origin in (*self._origins.values(), *self._leaving))

    def close(self) -> None:
        """Drop every connection."""
        for origin in (*self._origins.values(), *self._leaving):
            origin.close()


def _key(base: URL) -> tuple[str, str, int]:
    return base.scheme, base.host or "", base.port or 80


class _Small:
    """A whole answer, which must be small."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._decoder: ContentDecoder | None = None
        self._came = bytearray()
        self.status = 0
        self.body = b""

    def begin(self, response: Response) -> Body:
        """Its head."""
        self.status = response.status
        try:
            self._decoder = coding_of(response)
        except UnknownCoding as error:
            raise TransportError(f"the answer is in the content coding `{error}`") from None
        return self

    def data(self, data: bytes) -> None:
        """Some of its body."""
        self._came += data
        if len(self._came) > self._limit:
            raise self._too_large()

    def end(self) -> None:
        """Its body is here."""
        try:
            self.body = bytes(self._came) if self._decoder is None else decoded(bytes(self._came), self._decoder, self._limit)
        except Undecodable as error:
            raise TransportError(f"the answer {error} (its content coding)") from None
        except OverflowError:
            raise self._too_large() from None

    def _too_large(self) -> TransportError:
        return TransportError(f"the answer has more than {self._limit} bytes")


def head(method: str, url: URL, headers: Mapping[str, str]) -> bytes:
    """Request line and headers, each line ended, without the empty line that ends the head."""
    host = url.raw_authority.rpartition("@")[2]
    lines = [f"{method} {url.raw_path_qs} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")


def failure_of(error: TransportError, backend: str, address: str) -> UpstreamFailure:
    """What it means for a call that its endpoint gave no answer."""
    if isinstance(error, LocalShortage):
        return OutOfResources(f"The gateway cannot connect to backend `{backend}` now: {error}. Try again in a second.")
    what = f"cannot connect: {error}" if isinstance(error, ConnectError) else str(error)
    return UpstreamUnreachable(f"Backend `{backend}` at {address}: {what}.", error.how)


__all__ = [
    "ConnectError",
    "InvalidAnswer",
    "Origin",
    "Response",
    "Transport",
    "TransportError",
    "failure_of",
    "head",
]
