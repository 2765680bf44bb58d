"""An engine that sends a token to every stream on one common beat, as a batching engine does, and writes down when.

Run it as a process: `python -m tests.support.beat_engine BEAT_MS TOKENS`; it prints where it listens.
"""

import asyncio
import sys
import time

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
_EMPTY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


class BeatEngine:
    """Streams `tokens` events with the instant of their sending (time.monotonic) as content."""

    def __init__(self, beat: float, tokens: int) -> None:
        self._beat = beat
        self._tokens = tokens
        self._streams: dict[asyncio.StreamWriter, int] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"POST"):
            writer.write(_EMPTY)
            writer.close()
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(_HEAD)
        self._streams[writer] = self._tokens

    async def run(self) -> None:
        """Send on the beat, for ever."""
        due = time.monotonic()
        while True:
            due += self._beat
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for writer, left in list(self._streams.items()):
                if not left:
                    writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
                    writer.close()
                    del self._streams[writer]
                    continue
                self._streams[writer] = left - 1
                event = b'data: {"choices":[{"index":0,"delta":{"content":"%.6f"},"finish_reason":null}]}\n\n'
                writer.write(_chunk(event % time.monotonic()))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main(beat_ms: float, tokens: int) -> None:
    """Serve until killed."""
    engine = BeatEngine(beat_ms / 1000, tokens)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, backlog=256)
    print(f"on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await engine.run()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2])))
