from typing import Any

import pytest

from lexora_gateway.body import read_body
from lexora_gateway.errors import Refused
from lexora_gateway.watch import ClientGone


class Pieces:
    """A receive() that counts how often it was asked."""

    def __init__(self, *pieces: bytes, more: bool = False) -> None:
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": more or index < len(pieces) - 1}
            for index, piece in enumerate(pieces)
        ]
        self.asked = 0

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        return self.messages.pop(0) if self.messages else {"type": "http.disconnect"}


@pytest.mark.parametrize("pieces", [(b"abcdef",), (b"abc", b"def"), (b"", b"abc", b"", b"def", b"")])
async def test_pieces_are_joined(pieces: tuple[bytes, ...]) -> None:
    assert await read_body(Pieces(*pieces), {}, 6) == b"abcdef"


async def test_a_declared_length_is_refused_unread() -> None:
    receive = Pieces(b"abc")
    with pytest.raises(Refused) as refused:
        await read_body(receive, {b"content-length": b"7"}, 6)
    assert refused.value.failure.status == 413
    assert receive.asked == 0


@pytest.mark.parametrize("pieces", [(b"abcdefg",), (b"abcd", b"efg", b"hij")])
async def test_an_undeclared_length_is_refused_as_soon_as_it_shows(pieces: tuple[bytes, ...]) -> None:
    receive = Pieces(*pieces)
    with pytest.raises(Refused):
        await read_body(receive, {}, 6)
    assert receive.asked == min(len(pieces), 2)


@pytest.mark.parametrize("pieces", [(), (b"abc",)])
async def test_a_client_that_leaves_in_its_body_is_gone(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(ClientGone):
        await read_body(Pieces(*pieces, more=True), {}, 6)
