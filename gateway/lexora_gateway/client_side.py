"""The client's side of a call: its body comes from there, its answer goes there. One for each kind of server.

`http.exchange` is that of the facade's own server, `asgi_client` that of any ASGI server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lexora_contract.port import Flow
    from lexora_gateway.asgi_types import HeaderList, Headers


class ClientGone(Exception):
    """The client closed its connection before its request was whole."""


class ClientSide(Protocol):
    """One request, and the answer to it.

    `headers` are by lower-case name, of a repeated one the last; `pairs` has all of them. `address` is the client's, empty
    where there is none; `certificate` has the names (SAN) in its certificate, once that has been verified.

    The answer is either `whole`, or `start`, `write` as often as needed, and `end`. None of these waits, and none raises: they
    run inside the reading of an engine's connection. For a client that has left they do nothing. When the client leaves, the
    task that serves the call is cancelled. `flow` is paused while the client takes nothing. `started`: the status is certain.
    """

    pairs: HeaderList
    headers: Headers
    address: str
    flow: Flow
    started: bool

    @property
    def certificate(self) -> tuple[str, ...]:
        """The names in the client's certificate."""

    def arrived(self) -> bytes | None:
        """The whole body, if all of it is there already and none of it has been read."""

    async def read(self) -> tuple[bytes, bool]:
        """The next piece of the body, and whether there will be more. Raises ClientGone."""

    def whole(self, status: int, headers: HeaderList, body: bytes) -> None:
        """Send a whole answer; its content-length is added, and `headers` is given away."""

    def start(self, status: int, headers: HeaderList) -> None:
        """Begin an answer, whose head is sent with the first of its body."""

    def write(self, data: bytes) -> None:
        """Send a piece of the answer now; an empty one is none."""

    def end(self) -> None:
        """The answer is complete."""
