"""Content codings of bodies (RFC 9110, section 8.4), decoded while they arrive.

Each step gives at most about STEP_BYTES, so that the caller, which adds the steps up, can bound what a few bytes unfold to.
"""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Protocol

import brotli  # type: ignore[import-untyped]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

STEP_BYTES = 256 * 1024
# One on top of another; real clients use one.
MAX_CODINGS = 4
# A body may be several compressed pieces, one after another; parallel compressors make one for each 64 KiB or more.
MAX_MEMBERS = 1024
# RFC 9659: no zstd body needs a window of more than 8 MiB.
_ZSTD_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
_GZIP_WBITS, _ZLIB_WBITS, _RAW_WBITS = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_ZLIB_HEADER_BYTES = 2
_DEFLATE_METHOD = 8


class Undecodable(Exception):
    """What is wrong with a body: the rest of a sentence that begins with it."""


class UnknownCoding(Exception):
    """The codings of a body that cannot all be undone, or are more than MAX_CODINGS."""


class _Corrupt(Exception):
    """The bytes are not of their coding."""


class _Decoder(Protocol):
    """One coding. `decode` gives the decoded bytes of a piece, step by step; `whole` is true after the last byte."""

    def decode(self, data: bytes) -> Iterator[bytes]: ...

    @property
    def whole(self) -> bool: ...


class _Gzip:
    """RFC 1952: one member or several."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WBITS)
        self._members = 1

    @property
    def whole(self) -> bool:
        return self._member.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._members = _one_more(self._members)
                self._member = zlib.decompressobj(_GZIP_WBITS)
            yield from _inflated(self._member, data)
            data = self._member.unused_data


class _Deflate:
    """RFC 1950; and RFC 1951 without the two bytes before it, as some clients have it."""

    def __init__(self) -> None:
        self._head = b""
        self._stream: zlib._Decompress | None = None

    @property
    def whole(self) -> bool:
        return self._stream is not None and self._stream.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            self._head = data = self._head + data
            if len(data) < _ZLIB_HEADER_BYTES:
                return
            wrapped = data[0] & 0x0F == _DEFLATE_METHOD and int.from_bytes(data[:_ZLIB_HEADER_BYTES]) % 31 == 0
            self._stream = zlib.decompressobj(_ZLIB_WBITS if wrapped else _RAW_WBITS)
        yield from _inflated(self._stream, data)
        if self._stream.unused_data:
            raise _Corrupt


class _Brotli:
    """RFC 7932."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    @property
    def whole(self) -> bool:
        return bool(self._stream.is_finished())

    def decode(self, data: bytes) -> Iterator[bytes]:
        while out := self._stream.process(data, output_buffer_limit=STEP_BYTES):
            yield out
            data = b""


class _Zstd:
    """RFC 8878: one frame or several."""

    def __init__(self) -> None:
        self._frame = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)
        self._frames = 1

    @property
    def whole(self) -> bool:
        return self._frame.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data or not (self._frame.eof or self._frame.needs_input):
            if self._frame.eof:
                self._frames = _one_more(self._frames)
                self._frame = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)
            out = self._frame.decompress(data, STEP_BYTES)
            data = self._frame.unused_data if self._frame.eof else b""
            if out:
                yield out


_CODINGS: dict[bytes, Callable[[], _Decoder]] = {
    b"gzip": _Gzip,
    b"x-gzip": _Gzip,
    b"deflate": _Deflate,
    b"br": _Brotli,
    b"zstd": _Zstd,
}
_ERRORS = (_Corrupt, zlib.error, brotli.error, zstd.ZstdError)


class ContentDecoder:
    """Undoes the codings of a body, the last one first. `decode` and `end` raise Undecodable for bytes that are not of them."""

    def __init__(self, names: Sequence[bytes]) -> None:
        self._name = b", ".join(names).decode("latin-1")
        self._decoders = [_CODINGS[name]() for name in reversed(names)]
        self._begun = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        """What a piece of the body unfolds to, in steps."""
        self._begun = self._begun or bool(data)
        pieces: Iterable[bytes] = (data,)
        for decoder in self._decoders:
            pieces = _through(decoder, pieces)
        try:
            yield from pieces
        except _ERRORS:
            raise Undecodable(f"is not valid {self._name}") from None

    def end(self) -> None:
        """The body is over. One without a single byte is an empty body, as it is without a coding."""
        if self._begun and not all(decoder.whole for decoder in self._decoders):
            raise Undecodable(f"ends before its {self._name} does")


def decoder_of(values: Iterable[bytes]) -> ContentDecoder | None:
    """The decoder for the values of content-encoding headers; None when there is nothing to undo. Raises UnknownCoding."""
    names = [
        name for name in (each.strip().lower() for each in b",".join(values).split(b",")) if name not in (b"", b"identity")
    ]
    if any(name not in _CODINGS for name in names) or len(names) > MAX_CODINGS:
        raise UnknownCoding(b", ".join(names).decode("latin-1"))
    return ContentDecoder(names) if names else None


def _through(decoder: _Decoder, pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from decoder.decode(piece)


def _inflated(stream: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """The steps of a zlib stream; what comes after its end is its `unused_data`."""
    while True:
        out = stream.decompress(data, STEP_BYTES)
        data = stream.unconsumed_tail
        if out:
            yield out
        # A full step may leave output inside the stream although all input is consumed.
        if stream.eof or (not data and len(out) < STEP_BYTES):
            return


def _one_more(members: int) -> int:
    if members == MAX_MEMBERS:
        raise _Corrupt
    return members + 1
