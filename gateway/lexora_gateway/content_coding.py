"""Content codings of request bodies: what cannot be decoded is the client's fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexora_contract.content_coding import ContentDecoder, Undecodable, UnknownCoding
from lexora_contract.content_coding import decoder_of as decoder_of_any
from lexora_gateway.errors import Refused, invalid, unsupported_coding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class RequestDecoder:
    """Undoes the codings of a request's body. `decode` and `end` raise Refused (400) for bytes that are not of them."""

    def __init__(self, decoder: ContentDecoder) -> None:
        self._decoder = decoder

    def decode(self, data: bytes) -> Iterator[bytes]:
        """What a piece of the body unfolds to, in steps of at most about STEP_BYTES."""
        try:
            yield from self._decoder.decode(data)
        except Undecodable as error:
            raise _refused(error) from None

    def end(self) -> None:
        """The body is over."""
        try:
            self._decoder.end()
        except Undecodable as error:
            raise _refused(error) from None


def decoder_of(values: Iterable[bytes]) -> RequestDecoder | None:
    """The decoder for the values of a request's content-encoding headers; None when there is nothing to undo.

    Raises Refused (415) for a coding that is not taken, and for too many.
    """
    try:
        decoder = decoder_of_any(values)
    except UnknownCoding as error:
        raise Refused(unsupported_coding(str(error))) from None
    return RequestDecoder(decoder) if decoder is not None else None


def _refused(error: Undecodable) -> Refused:
    return Refused(invalid(f"The request body {error}.", "content-encoding"))
