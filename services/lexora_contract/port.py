"""The one thing that the façade knows of a router: `unary` for questions, `relay` for calls.

In process the objects below are handed on as they are; only the adapters at a gRPC wire make messages of them.
"""

from dataclasses import dataclass, field
from typing import Protocol

from lexora_contract.answer import Head, Receipt, Reply


class Sink(Protocol):
    """Where the answer of a call goes: one `head` and then `frames`, or one `reply`. Synchronous, as a transport's write is."""

    def head(self, head: Head, /) -> None:
        """Status and headers of a stream, just before its first frames."""

    def frames(self, data: bytes, /) -> None:
        """Whole events, as many as one read brought."""

    def reply(self, reply: Reply, /) -> None:
        """A whole answer."""


class ClientSink(Sink, Protocol):
    """The sink at the client's end of a port. A client that is slow or gone is no reason to raise."""

    def accepted(self, receipt: Receipt, *, streams: bool) -> None:
        """The request is understood, and asks for a stream or not. Before all else; `receipt` is filled as the call goes on."""


class Source(Protocol):
    """What an answer is read from, as asyncio's transports are."""

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""

    def resume_reading(self) -> None:
        """Read again."""


class Flow:
    """Back-pressure of one call: the client's connection pauses, and the engine's stops reading until it resumes."""

    __slots__ = ("_source", "paused")

    def __init__(self) -> None:
        self.paused = False
        self._source: Source | None = None

    def pause(self) -> None:
        """The client does not take what is written to it."""
        self.paused = True
        if self._source is not None:
            self._source.pause_reading()

    def resume(self) -> None:
        """The client takes it again."""
        self.paused = False
        if self._source is not None:
            self._source.resume_reading()

    def attach(self, source: Source) -> None:
        """From now on the answer is read from `source`."""
        self._source = source
        if self.paused:
            source.pause_reading()

    def detach(self) -> None:
        """The source has given all that it had to give."""
        self._source = None


@dataclass(slots=True)
class Options:
    """How a call is to be treated; see CallOptions in options.proto."""

    request_id: str = ""
    user: str = ""
    priority: int | None = None
    fallback_allowed: bool = True
    resume_allowed: bool = True
    prompt_cache_key: str = ""


@dataclass(slots=True)
class RawCall:
    """One request in OpenAI's own bytes; see RawCall in the contract. The body is given away: a call holds one copy of it."""

    path: str
    content_type: str = ""
    body: bytes = b""
    method: str = "POST"
    query: str = ""
    options: Options = field(default_factory=Options)

    def take_body(self) -> bytes:
        """The body; what takes it is the only one to hold it from now on."""
        body, self.body = self.body, b""
        return body
