"""What workers and their coordinator send each other over a unix socket: msgpack behind four bytes of length."""

import struct
from typing import Any, Generic, TypeVar

from msgspec import DecodeError, Struct, ValidationError, msgpack

MAX_FRAME_BYTES = 2**20
_LENGTH = struct.Struct(">I")
_Frame = TypeVar("_Frame")


class BadFrame(Exception):
    """The other side sends what is no frame, or too large a one."""


class Exchange(Struct, array_like=True, tag="exchange"):
    """See port.Batch."""

    member: str
    ttl: float
    number: int
    join: bool
    asks: list[tuple[str, bytes]]


class Leave(Struct, array_like=True, tag="leave"):
    """The membership ends."""

    member: str


class Given(Struct, array_like=True, tag="given"):
    """See port.Answer. It answers Leave as well."""

    known: bool
    members: int
    answers: list[bytes]


class Refused(Struct, array_like=True, tag="refused"):
    """Why there is no answer."""

    reason: str


class News(Struct, array_like=True, tag="news"):
    """No answer: a member's exchange at these programs changed what others may wait for."""

    member: str
    programs: list[str]


ToStore = Exchange | Leave
FromStore = Given | Refused | News
_pack = msgpack.Encoder().encode


def packed(frame: Struct) -> bytes:
    """The bytes to send. Raises BadFrame for one that is too large."""
    body = _pack(frame)
    if len(body) > MAX_FRAME_BYTES:
        raise BadFrame(f"a frame of {len(body)} bytes: there may be {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


class Reader(Generic[_Frame]):
    """Makes frames of the bytes that come in. `kinds` is the union of the classes that may come."""

    def __init__(self, kinds: Any) -> None:
        self._decode = msgpack.Decoder[_Frame](kinds).decode
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[_Frame]:
        """The frames that are whole now. Raises BadFrame."""
        buffer, found, at = self._buffer, [], 0
        buffer += data
        while len(buffer) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, at)
            if length > MAX_FRAME_BYTES:
                raise BadFrame(f"a frame of {length} bytes: there may be {MAX_FRAME_BYTES}")
            begin, end = at + _LENGTH.size, at + _LENGTH.size + length
            if len(buffer) < end:
                break
            try:
                found.append(self._decode(bytes(buffer[begin:end])))
            except (DecodeError, ValidationError) as error:
                raise BadFrame(str(error)) from error
            at = end
        del buffer[:at]
        return found
