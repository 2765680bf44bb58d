"""A gateway with few file descriptors: who holds connections takes none from engines, and no engine is blamed for a want."""

import asyncio
import socket
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from tests.support import wire
from tests.support.calls import CHAT, chat
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import Do, reply
from tests.support.servers import LEXORA, Gateway, base_config

WHOLE = reply(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"foxes"},"finish_reason":"stop"}]}')
LIMITED = ["bash", "-c", 'ulimit -n 128; exec "$0" "$@"', *LEXORA]
IDLE = 200


async def call(http: str, host: str) -> int:
    """The status of one call from a loopback address, on a connection of its own."""
    connector = aiohttp.TCPConnector(local_addr=(host, 0), force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session, session.post(http + CHAT, json=chat("m")) as response:
        await response.read()
        return response.status


def hold(http: str, host: str, count: int, data: bytes = b"") -> list[socket.socket]:
    """So many connections from an address that say no more than this."""
    where = urlsplit(http)
    held = [socket.create_connection((where.hostname, where.port), source_address=(host, 0)) for _ in range(count)]
    for each in held:
        each.sendall(data)
    return held


async def test_idle_connections_of_one_client_cost_others_nothing(tmp_path: Path) -> None:
    async with LoopEngine() as engine:
        engine.answer(WHOLE)
        config = base_config(main={"url": engine.url, "models": ["m"]})
        with Gateway(config, tmp_path, command=LIMITED) as process:
            held = hold(process.http, "127.0.0.2", IDLE)
            statuses = await asyncio.gather(*(call(process.http, "127.0.0.3") for _ in range(10)))
            statuses += [await call(process.http, "127.0.0.3") for _ in range(80)]
            assert set(statuses) == {200}
            assert 0 < process.metric("lexora_http_connections") <= 64
            assert process.metric("lexora_http_connections_refused_total") == 0, "idle ones make room"
            for each in held:
                each.close()
            assert process.metric("lexora_breaker_state", backend="main") == 0
            assert process.metric("lexora_out_of_resources_total") == 0


async def test_a_client_whose_connections_are_all_busy_is_refused_and_only_it(tmp_path: Path) -> None:
    async with LoopEngine() as engine:
        engine.answer(WHOLE)
        config = base_config(main={"url": engine.url, "models": ["m"]})
        with Gateway(config, tmp_path, command=LIMITED) as process:
            held = hold(process.http, "127.0.0.2", 32, b"POST ")
            await asyncio.sleep(0)
            (late,) = hold(process.http, "127.0.0.2", 1)
            late.settimeout(5)
            answer = await asyncio.to_thread(late.recv, 4096)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in answer
            assert b"server.max_connections_per_address" in answer
            assert await call(process.http, "127.0.0.3") == 200
            process.wait_for("connections_refused")
            for each in (*held, late):
                each.close()
            await asyncio.to_thread(
                wire.wait_until, lambda: process.metric("lexora_http_connections") <= 2, "the connections are gone"
            )
            assert await call(process.http, "127.0.0.2") == 200, "at once"


async def test_a_want_of_descriptors_is_no_engine_s_fault(tmp_path: Path) -> None:
    """More calls than descriptors, where bounds were set too high: some are 503 for that reason, then all is well at once."""
    async with LoopEngine() as engine:
        engine.answer(Do.HANG)
        config = base_config(main={"url": engine.url, "models": ["m"], "max_concurrency": 200})
        config["server"] |= {"max_connections": 100, "max_connections_per_address": 100}
        config["retry"] = {"max_retries": 0}
        with Gateway(config, tmp_path, command=LIMITED) as process:
            calls = [asyncio.create_task(call(process.http, "127.0.0.2")) for _ in range(95)]
            done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert {each.result() for each in done} == {503}
            assert "out_of_resources" in process.wait_for(".*out_of_resources.*").group(0)
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            engine.answer(WHOLE)
            await engine.until(lambda: not engine.busy)
            assert {await call(process.http, "127.0.0.2") for _ in range(10)} == {200}
            assert process.metric("lexora_out_of_resources_total", error="EMFILE") > 0
            assert process.metric("lexora_attempts_total", outcome="fault") == 0
            assert process.metric("lexora_breaker_state", backend="main") == 0
            assert "endpoint_down" not in process.output
