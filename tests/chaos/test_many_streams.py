"""Streams that are open at once: what each of them costs, and that all of it is given back, whichever way they end."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import LAST_CHUNK, chunk, stream_head
from tests.support.servers import base_config
from tests.support.streams import until
from tests.support.watched import WatchedGateway

STREAMS = 1500
BYTES_EACH = 30 * 1024  # of 5,000 each takes two thirds: what the first ones bring weighs more here
EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
LAST = EVENT.replace(b"null", b'"stop"') + b"data: [DONE]\n\n"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 200}], "stream": True}).encode()
REQUEST = wire.request("/v1/chat/completions", BODY)

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def opened(base: str) -> Ends:
    """A stream whose first event is here."""
    reader, writer = await asyncio.open_connection(*base.removeprefix("http://").split(":"))
    writer.write(REQUEST)
    await reader.readuntil(EVENT)
    return reader, writer


@pytest.mark.timeout(180)
async def test_a_crowd_of_streams_costs_little_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONMALLOC", "malloc")  # as the systemd unit sets it: Python's own gives back whole megabytes only
    async with LoopEngine("m") as engine:
        config = base_config(main={"url": engine.url, "models": ["m"], "max_concurrency": STREAMS})
        config["server"] |= {"max_connections": 2 * STREAMS, "max_connections_per_address": 2 * STREAMS}
        with WatchedGateway(config, tmp_path) as gateway:
            first, sockets = gateway.resident(), gateway.sockets()
            for number, end in enumerate(("the engine", "the clients"), 1):
                last = asyncio.Event()
                engine.answer(stream_head() + chunk(EVENT), last, chunk(LAST) + LAST_CHUNK)
                before = gateway.resident()
                streams: list[Ends] = []
                while len(streams) < STREAMS:
                    streams += await asyncio.gather(*(opened(gateway.http) for _ in range(100)))
                peak = gateway.resident()
                assert gateway.metric("lexora_endpoint_in_flight") == STREAMS
                if end == "the engine":
                    last.set()
                    for tail in await asyncio.gather(*(reader.readuntil(LAST_CHUNK) for reader, _ in streams)):
                        assert b"[DONE]" in tail
                for _, writer in streams:
                    writer.transport.abort()
                await asyncio.to_thread(wire.wait_idle, gateway.http)
                await asyncio.to_thread(gateway.wait_for, "(?s)" + number * "memory_given_back.*")
                await until(lambda: gateway.sockets() <= sockets + 1, "all sockets to be closed")
                assert not gateway.tasks()
                kept = gateway.resident()
                print(f"{end}: {(peak - first) / STREAMS / 1024:.1f} KB each, {(kept - before) / 2**20:.1f} MiB kept")
                assert peak - first < STREAMS * BYTES_EACH
            assert kept - before < (peak - before) / 2, "most of it is given back"
