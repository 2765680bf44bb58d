"""Answers in a content coding: the router asks for none, and some engines and proxies compress all the same."""

from collections import deque
from collections.abc import Callable, Iterator

from lexora_contract.content_coding import STEP_BYTES, ContentDecoder, Undecodable, decoder_of
from lexora_router.engines.response import Body, Response, Rest


def has_coding(response: Response) -> bool:
    """Whether an answer says that its body has content codings."""
    return b"content-encoding" in dict(response.headers)


def coding_of(response: Response) -> ContentDecoder | None:
    """What undoes the codings of an answer; None when it has none. Raises UnknownCoding."""
    if not has_coding(response):
        return None
    return decoder_of(value for name, value in response.headers if name == b"content-encoding")


class Decoded:
    """Takes a body in its codings, and gives it without them to another one. Bytes that are not of them raise `fault`.

    Few bytes may unfold to many: after each STEP_BYTES others have their turn, and a slow client is waited for.
    """

    __slots__ = ("_body", "_decoder", "_fault", "_held", "_response", "_steps")

    def __init__(
        self, body: Body, decoder: ContentDecoder, fault: Callable[[Undecodable], Exception], response: Response
    ) -> None:
        self._body = body
        self._decoder = decoder
        self._fault = fault
        self._response = response
        self._steps: Iterator[bytes] | None = None
        self._held: deque[bytes] = deque()

    def data(self, data: bytes) -> Body | None:
        """Some bytes of the body as they came."""
        self._held.append(data)
        if self._steps is None:
            self._go_on()
        return self._body if isinstance(self._body, Rest) else None

    def end(self) -> None:
        """The body has come, as far as its end is waited for."""
        if self._response.whole and not isinstance(self._body, Rest):
            try:
                self._decoder.end()
            except Undecodable as error:
                raise self._fault(error) from None
        self._body.end()

    def _go_on(self) -> None:
        """Decode until STEP_BYTES were given."""
        given = 0
        while (step := self._next()) is not None:
            self._body = self._body.data(step) or self._body
            given += len(step)
            if given >= STEP_BYTES:
                self._response.hold(self._go_on)
                return

    def _next(self) -> bytes | None:
        """The next decoded bytes; None when all that came is decoded."""
        try:
            while self._steps is not None or self._held:
                if self._steps is None:
                    self._steps = self._decoder.decode(self._held.popleft())
                if (step := next(self._steps, None)) is not None:
                    return step
                self._steps = None
        except Undecodable as error:
            raise self._fault(error) from None
        return None


def decoded(data: bytes, decoder: ContentDecoder, limit: int) -> bytes:
    """A whole body at once. Raises Undecodable; OverflowError when it is larger than `limit` bytes."""
    whole = bytearray()
    for step in decoder.decode(data):
        whole += step
        if len(whole) > limit:
            raise OverflowError
    decoder.end()
    return bytes(whole)
