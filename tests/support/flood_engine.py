"""An engine that answers a call after so many milliseconds, and a streamed one by large events without end.

Run it as a process: `python -m tests.support.flood_engine MS`; it prints where it listens.
"""

import asyncio
import contextlib
import sys

from tests.support.raw_server import chunk, reply, stream_head

_ANSWER = reply(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"foxes"},"finish_reason":"stop"}]}')
_EVENT = chunk(b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 65_000))


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith(b"post"):
                writer.write(reply(b"{}"))
                continue
            body = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            if b'"stream":true' not in body:
                await asyncio.sleep(seconds)
                writer.write(_ANSWER)
                continue
            writer.write(stream_head())
            while True:
                writer.write(_EVENT)
                await writer.drain()
    writer.transport.abort()


async def _main(seconds: float) -> None:
    server = await asyncio.start_server(lambda reader, writer: _serve(reader, writer, seconds), "127.0.0.1", 0, backlog=256)
    print(f"on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(float(sys.argv[1]) / 1000))
