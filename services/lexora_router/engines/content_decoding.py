"""Answers in a content coding: the router asks for none, and some engines and proxies compress all the same."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from lexora_contract.content_coding import STEP_BYTES, ContentDecoder, Undecodable, decoder_of
from lexora_router.engines.http1 import Response

Read = Callable[[], Awaitable[bytes]]


def coding_of(response: Response) -> ContentDecoder | None:
    """What undoes the codings of an answer; None when it has none. Raises UnknownCoding."""
    if b"content-encoding" not in dict(response.headers):
        return None
    return decoder_of(value for name, value in response.headers if name == b"content-encoding")


def decoded(read: Read, decoder: ContentDecoder, fault: Callable[[Undecodable], Exception]) -> Read:
    """`read` without the codings, in pieces of at most about STEP_BYTES. For bytes that are not of them it raises `fault`."""
    steps: Iterator[bytes] = iter(())

    async def next_piece() -> bytes:
        nonlocal steps
        while True:
            try:
                if (step := next(steps, None)) is not None:
                    break
                if not (data := await read()):
                    decoder.end()
                    return b""
                steps = decoder.decode(data)
            except Undecodable as error:
                raise fault(error) from None
        if len(step) >= STEP_BYTES:
            await asyncio.sleep(0)  # few bytes may unfold to many steps: others have their turn between two
        return step

    return next_piece


def once(data: bytes) -> Read:
    """A `read` for a body that is here already."""
    pieces = [b"", data] if data else [b""]

    async def next_piece() -> bytes:
        return pieces.pop() if pieces else b""

    return next_piece
