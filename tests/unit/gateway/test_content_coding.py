import gzip
import os
import sys
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import pytest

from lexora_contract.content_coding import MAX_CODINGS, MAX_MEMBERS, STEP_BYTES
from lexora_gateway.content_coding import decoder_of
from lexora_gateway.errors import Refused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b'{"model": "m", "messages": []}' * 1000 + os.urandom(5000)
# What brotli gives at a time is more than it is asked for.
MOST = 2 * STEP_BYTES


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-zlib.MAX_WBITS)


ENCODE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "X-GZip": gzip.compress,
    "deflate": zlib.compress,
    "deflate ": raw_deflate,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "identity, gzip": gzip.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
    "deflate,zstd , gzip": lambda data: gzip.compress(zstd.compress(zlib.compress(data))),
}


def decode(names: str, data: bytes, piece: int = 1 << 20) -> bytes:
    decoder = decoder_of([names.encode()])
    assert decoder is not None
    steps = [step for at in range(0, len(data), piece) for step in decoder.decode(data[at : at + piece])]
    decoder.end()
    assert all(0 < len(step) <= MOST for step in steps)
    return b"".join(steps)


@pytest.mark.parametrize("piece", [1, 1000, 1 << 20])
@pytest.mark.parametrize("names", ENCODE)
def test_every_coding_in_pieces_of_any_size(names: str, piece: int) -> None:
    assert decode(names, ENCODE[names](TEXT), piece) == TEXT


@pytest.mark.parametrize("names", ENCODE)
def test_what_unfolds_a_thousandfold_comes_in_steps(names: str) -> None:
    many = bytes(10 * STEP_BYTES + 7)
    assert decode(names, ENCODE[names](many)) == many


@pytest.mark.parametrize("values", [[], [b""], [b"identity"], [b"identity, Identity"]])
def test_nothing_to_undo(values: list[bytes]) -> None:
    assert decoder_of(values) is None


def test_several_headers_are_one_list() -> None:
    decoder = decoder_of([b"gzip", b"br"])
    assert decoder is not None
    assert b"".join(decoder.decode(brotli.compress(gzip.compress(TEXT)))) == TEXT


@pytest.mark.parametrize("values", [[b"compress"], [b"gzip, lzma"], [b"gzip;q=1"], [b"gzip," * MAX_CODINGS + b"gzip"]])
def test_a_coding_that_is_not_taken(values: list[bytes]) -> None:
    with pytest.raises(Refused) as refused:
        decoder_of(values)
    assert refused.value.failure.status == 415
    assert (b"accept-encoding", b"gzip, deflate, br, zstd") in refused.value.failure.headers


def cut(data: bytes) -> bytes:
    return data[:-3]


def spoilt(data: bytes) -> bytes:
    return b"\xff\xff\xff\xff" + data[4:]


def continued(data: bytes) -> bytes:
    return data + b"\x01more"


@pytest.mark.parametrize("piece", [1, 1 << 20])
@pytest.mark.parametrize("spoil", [cut, spoilt, continued])
@pytest.mark.parametrize("names", ENCODE)
def test_bytes_that_are_not_of_the_coding(names: str, spoil: Callable[[bytes], bytes], piece: int) -> None:
    with pytest.raises(Refused) as refused:
        decode(names, spoil(ENCODE[names](TEXT)), piece)
    assert (refused.value.failure.status, refused.value.failure.param) == (400, "content-encoding")


@pytest.mark.parametrize("names", ["gzip", "zstd"])
def test_members_are_bounded(names: str) -> None:
    member = ENCODE[names](b"a")
    assert decode(names, member * MAX_MEMBERS) == b"a" * MAX_MEMBERS
    with pytest.raises(Refused):
        decode(names, member * (MAX_MEMBERS + 1))


def test_no_byte_at_all_is_an_empty_body() -> None:
    assert decode("gzip", b"") == b""
