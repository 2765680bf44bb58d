"""SIGTERM: what runs may finish, what comes is sent elsewhere, what is left is told, and the exit code is 0."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lexora.v1.call_pb2 import Call
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2 import StreamRequest
from lexora.v1.router_pb2_grpc import RouterServiceStub
from tests.chaos.conftest import MODEL
from tests.chaos.streams import CHAT, body, client, stream
from tests.support import wire
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import reply
from tests.support.servers import Gateway, Simulator, base_config

STREAMS = 100
LARGE = 8 * 1024 * 1024  # bytes, more than the kernel takes at once
LEFT = 7  # requests that the rate limit leaves beyond them


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "20", "--max-num-seqs", "1000", model=MODEL) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def clean(engine: Simulator) -> None:
    engine.clear()


def config(engine: Simulator, *, drain_timeout: float = 30.0, **backend: Any) -> dict[str, Any]:
    found = base_config(main={"url": engine.url, "models": [MODEL], "max_concurrency": 200, **backend})
    found["server"]["drain_timeout"] = drain_timeout
    return found


async def under_way(engine: Simulator, count: int) -> None:
    await asyncio.to_thread(wire.wait_until, lambda: engine.stats()["running"] == count, f"{count} streams at the engine")


@pytest.mark.serial
async def test_sigterm_under_100_streams(engine: Simulator, tmp_path: Path) -> None:
    limits = {"rate_limit": {"enabled": True, "default_rate": 0.001, "default_burst": STREAMS + 1 + LEFT}}
    with Gateway(config(engine) | limits, tmp_path) as gateway:
        async with client(gateway.http) as http:
            streams = [asyncio.create_task(stream(http, body(MODEL, 150))) for _ in range(STREAMS)]
            longest = asyncio.create_task(stream(http, body(MODEL, 5000)))  # as long as it takes to ask everything else
            await under_way(engine, STREAMS + 1)
            gateway.signal(signal.SIGTERM)
            await asyncio.to_thread(gateway.wait_for, "draining")
            await refused_everywhere(gateway, http)
            seen = await asyncio.gather(*streams)
            longest.cancel()
            await asyncio.gather(longest, return_exceptions=True)
        assert await asyncio.to_thread(gateway.wait) == 0
        assert all(each.whole for each in seen)
        assert "Traceback" not in gateway.output
    await under_way(engine, 0)
    assert (engine.stats()["completed"], engine.stats()["aborts"]) == (STREAMS, 1)


async def refused_everywhere(gateway: Gateway, http: httpx.AsyncClient) -> None:
    """New calls are sent elsewhere with a hint, and health says so, while the process itself is alive."""
    refused = await http.post(CHAT, json=body(MODEL, 1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-ratelimit-remaining-requests"] == str(LEFT), "the limits are told"
    for path, status in (("/health", 503), ("/health/ready", 503), ("/health/live", 200)):
        assert (await http.get(path)).status_code == status
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        state = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert state.status == health_pb2.HealthCheckResponse.NOT_SERVING
        call: Any = RouterServiceStub(channel).Stream(StreamRequest(call=Call(raw=RawCall(path=CHAT, body=b"{}"))))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers = dict(error.value.trailing_metadata() or ())
    assert int(trailers["grpc-retry-pushback-ms"]) > 0
    assert trailers["x-ratelimit-remaining-requests"] == str(LEFT), "and nothing is charged"
    details = Status.FromString(trailers["grpc-status-details-bin"]).details
    info, hint = ErrorInfo(), RetryInfo()
    assert any(detail.Unpack(info) for detail in details)
    assert any(detail.Unpack(hint) for detail in details)
    assert info.reason == "DRAINING"


async def end_of(call: Any) -> grpc.aio.AioRpcError:
    """Read a gRPC stream to the error that it ends with."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the stream ended well")


async def test_streams_that_outlast_the_drain_are_told(engine: Simulator, tmp_path: Path) -> None:
    with Gateway(config(engine, drain_timeout=0.5), tmp_path) as gateway:
        async with client(gateway.http) as http, grpc.aio.insecure_channel(gateway.grpc) as channel:
            streams = [asyncio.create_task(stream(http, body(MODEL, 5000))) for _ in range(20)]
            asked = httpx.Request("POST", "http://x", json=body(MODEL, 5000)).content
            call: Any = RouterServiceStub(channel).Stream(StreamRequest(call=Call(raw=RawCall(path=CHAT, body=asked))))
            ended = asyncio.create_task(end_of(call))
            await under_way(engine, 21)
            gateway.signal(signal.SIGTERM)
            seen = await asyncio.gather(*streams)
            error = await ended
        assert await asyncio.to_thread(gateway.wait) == 0
        for each in seen:
            assert each.status == 200
            assert "[DONE]" not in each.events
            assert each.error["code"] == "draining"
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in str(error.details())
        lines = [line for line in gateway.output.splitlines() if "call" in line and "DRAINING" in line]
        assert len(lines) == 21, "each is written down as what it was, and not as a client that left"
        assert "Traceback" not in gateway.output
    await under_way(engine, 0)
    assert engine.stats()["aborts"] == 21


async def test_calls_that_wait_are_served_within_the_drain(engine: Simulator, tmp_path: Path) -> None:
    with Gateway(config(engine, max_concurrency=2), tmp_path) as gateway:
        async with client(gateway.http) as http:
            streams = [asyncio.create_task(stream(http, body(MODEL, 20))) for _ in range(10)]
            await asyncio.to_thread(wire.wait_until, lambda: gateway.metric("lexora_active_requests") == 10, "10 calls")
            gateway.signal(signal.SIGTERM)
            seen = await asyncio.gather(*streams)
        assert await asyncio.to_thread(gateway.wait) == 0
    assert all(each.whole for each in seen)
    assert engine.stats()["max_running"] == 2


async def test_calls_that_still_wait_at_the_end_are_refused(engine: Simulator, tmp_path: Path) -> None:
    with Gateway(config(engine, drain_timeout=0.3, max_concurrency=1), tmp_path) as gateway:
        async with client(gateway.http) as http:
            first = asyncio.create_task(stream(http, body(MODEL, 5000)))
            await under_way(engine, 1)
            waiting = asyncio.create_task(http.post(CHAT, json=body(MODEL, 1)))
            await asyncio.to_thread(wire.wait_until, lambda: gateway.metric("lexora_active_requests") == 2, "2 calls")
            gateway.signal(signal.SIGTERM)
            refused = await waiting
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert "retry-after" in refused.headers
            assert (await first).error["code"] == "draining"
        assert await asyncio.to_thread(gateway.wait) == 0
    assert engine.stats()["requests"] == 1


class Raw:
    """A connection by the letter."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer

    @classmethod
    async def to(cls, base: str, data: bytes, *, limit: int = 2**16) -> "Raw":
        host, port = base.removeprefix("http://").split(":")
        made = cls(*await asyncio.open_connection(host, int(port), limit=limit))
        made.send(data)
        return made

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def rest(self) -> bytes:
        """All that comes until the other side closes."""
        async with asyncio.timeout(30):
            found = await self.reader.read()
        self._writer.close()
        return found


def asked(tokens: int, *, stream: bool = True) -> bytes:
    return wire.request(CHAT, json.dumps(body(MODEL, tokens) | {"stream": stream}).encode())


async def test_connections_end_with_their_next_answers(engine: Simulator, tmp_path: Path) -> None:
    """Whatever a connection is about at SIGTERM, its client is answered, and then connects to another process."""
    async with LoopEngine("big") as big:
        large = b'{"text": "%b"}' % (b"x" * LARGE)
        big.answer(reply(large))
        settings = config(engine)
        settings["routing"]["backends"]["big"] = {"url": big.url, "models": ["big"]}
        with Gateway(settings, tmp_path) as gateway:
            slow = await Raw.to(gateway.http, wire.request(CHAT, b'{"model": "big", "messages": []}'), limit=1024)
            await asyncio.to_thread(gateway.wait_for, "call .*model=big.*status=200")
            holds = await Raw.to(gateway.http, asked(100))
            kept = await Raw.to(gateway.http, wire.request("/health/live", method="GET"))
            pipelined = await Raw.to(gateway.http, asked(30) + asked(1))
            upload = await Raw.to(gateway.http, asked(1)[:-5])
            head = await Raw.to(gateway.http, asked(1)[:30])
            await asyncio.gather(holds.reader.readline(), kept.reader.readuntil(b"}"), pipelined.reader.readline())
            gateway.signal(signal.SIGTERM)
            assert await kept.rest() == b"", "an idle connection is closed"
            new = await Raw.to(gateway.http, asked(1))
            head.send(asked(1)[30:])
            for name, each in {"new": new, "head": head, "upload": upload}.items():
                answer = await each.rest()
                assert answer.startswith(b"HTTP/1.1 503 "), name
                assert b"connection: close\r\n" in answer, name
                assert b'"code":"draining"' in answer, name
            assert not holds.reader.at_eof()
            first, refusal, second = (await pipelined.rest()).partition(b"HTTP/1.1 503 ")
            assert first.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            assert refusal
            assert b"connection: close\r\n" in second
            assert b"[DONE]" in await holds.rest()
            assert (await slow.rest()).endswith(large), "a slow reader gets all of its answer"
            assert await asyncio.to_thread(gateway.wait) == 0
            assert "Traceback" not in gateway.output
            refused = [line for line in gateway.output.splitlines() if "error=DRAINING" in line]
            assert len(refused) == 4, "each has its line"


async def test_sighup_in_a_drain_ends_nothing(engine: Simulator, tmp_path: Path) -> None:
    with Gateway(config(engine), tmp_path) as gateway:
        async with client(gateway.http) as http:
            running = asyncio.create_task(stream(http, body(MODEL, 50)))
            await under_way(engine, 1)
            gateway.signal(signal.SIGTERM)
            await asyncio.to_thread(gateway.wait_for, "draining")
            gateway.config_file.write_text(gateway.config_file.read_text() + "retry: {max_retries: 1}\n")
            gateway.signal(signal.SIGHUP)
            await asyncio.to_thread(gateway.wait_for, "configuration_refused.*shutting down")
            assert (await running).whole
        assert await asyncio.to_thread(gateway.wait) == 0
