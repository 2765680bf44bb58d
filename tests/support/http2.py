"""HTTP/2 frames by hand, for what no gRPC client lets a test send. https://www.rfc-editor.org/rfc/rfc9113"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
ACK, END_STREAM, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def message(data: bytes) -> bytes:
    """A gRPC message, uncompressed."""
    return b"\0" + struct.pack(">I", len(data)) + data


class Http2Client:
    """One connection; it answers nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def connected(cls, target: str) -> AsyncIterator[Self]:
        host, _, port = target.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    def call(self, stream: int, rpc: str, data: bytes) -> None:
        """Begin an rpc, such as /lexora.v1.RouterService/Generate, with one message."""
        self.begin(stream, rpc)
        self._writer.write(frame(DATA, END_STREAM, stream, message(data)))

    def begin(self, stream: int, rpc: str) -> None:
        """Begin an rpc, without a message."""
        self._writer.write(frame(HEADERS, END_HEADERS, stream, rpc_head(rpc)))

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(data)

    def ping(self, number: int) -> None:
        self._writer.write(frame(PING, 0, 0, struct.pack(">Q", number)))

    async def read(self) -> tuple[int, int, int, bytes]:
        """The next frame: kind, flags, stream, payload."""
        head = await self._reader.readexactly(9)
        size = int.from_bytes(head[:3], "big")
        return head[3], head[4], int.from_bytes(head[5:], "big"), await self._reader.readexactly(size)

    async def until(self, kind: int, flags: int = 0) -> bytes:
        """Payload of the next frame of this kind with these flags; a GOAWAY ends the wait."""
        return (await self.next_of(kind, flags))[3]

    async def next_of(self, kind: int, flags: int = 0) -> tuple[int, int, int, bytes]:
        """The next frame of this kind with these flags."""
        async with asyncio.timeout(20):
            while True:
                found = await self.read()
                if found[0] == kind and found[1] & flags == flags:
                    return found
                assert found[0] != GOAWAY, found[3]


def rpc_head(rpc: str) -> bytes:
    """The header block of an rpc."""
    fields = {":method": "POST", ":scheme": "http", ":path": rpc, ":authority": "test", "content-type": "application/grpc"}
    # HPACK: literal fields with new names, not indexed (RFC 7541, 6.2.2); no text here is longer than 126 bytes.
    return b"".join(b"\0" + _literal(name) + _literal(value) for name, value in (fields | {"te": "trailers"}).items())


def _literal(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
