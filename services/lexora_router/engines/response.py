"""An answer as it arrives: its head, and what takes its body."""

from collections.abc import Callable
from typing import Protocol

from lexora_contract.answer import Head


class Body(Protocol):
    """What takes the body of an answer, inside the connection's own call. What it raises ends the exchange, as its error."""

    def data(self, data: bytes, /) -> "Body | None":
        """All bytes that one read brought, at least one. Gives what takes the rest of the body, where that is another one."""

    def end(self) -> None:
        """The body has ended as it should."""


class Answer(Protocol):
    """What takes the answer to one request."""

    def begin(self, response: "Response", /) -> Body:
        """The head of the answer is here; gives what takes its body."""


class Rest:
    """Drops what follows an answer that is whole."""

    def data(self, data: bytes) -> None:
        """Some of it."""

    def end(self) -> None:
        """The end of the body."""


class Exchange(Protocol):
    """The connection that an answer arrives on."""

    complete: bool  # the answer has come to its end

    def ends_within(self, seconds: float | None) -> None:
        """See Response."""

    def hold(self, go_on: Callable[[], None]) -> None:
        """See Response."""


class Response:
    """The head of an answer, and how its body may end. `headers` have lower-case names.

    `content_type` is empty when there is none. One response may serve many answers (see KnownAnswer): `plain_head` is what goes
    on to the client, made once, where the body has no content coding.
    """

    __slots__ = ("_connection", "content_type", "headers", "plain_head", "status")

    def __init__(self, connection: Exchange, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers
        self.content_type = next((value for name, value in headers if name == b"content-type"), b"").decode("latin-1")
        self.plain_head: Head | None = None

    @property
    def whole(self) -> bool:
        """Whether the body has come to its end."""
        return self._connection.complete

    def ends_within(self, seconds: float | None) -> None:
        """Take so many seconds, or a connection that breaks, for the end of the body; None: no longer."""
        self._connection.ends_within(seconds)

    def hold(self, go_on: Callable[[], None]) -> None:
        """Read and end nothing before `go_on` was called: when others had their turn, and the client takes more."""
        self._connection.hold(go_on)
