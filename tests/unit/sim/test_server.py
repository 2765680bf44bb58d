from __future__ import annotations

import asyncio
import base64
import signal
import socket
import sys
from pathlib import Path

import pytest

from lexora_sim import SimSettings, Simulator
from lexora_sim.cli import main
from tests.unit.sim.helpers import HELLO, call, chat, encode_request, names, parse, post, until


async def test_keep_alive_and_pipelining(sim: Simulator) -> None:
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(encode_request("GET", "/version") * 2 + encode_request("POST", "/v1/chat/completions", HELLO))
    for _ in range(2):
        assert b"connection:" not in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(20) == b'{"version":"0.32.0"}'
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    assert (await reader.readexactly(length)).startswith(b'{"id":"chatcmpl-')
    writer.close()


async def test_http_1_0_and_continue(sim: Simulator) -> None:
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    request = encode_request("POST", "/v1/chat/completions", {**HELLO, "stream": True, "max_tokens": 2})
    writer.write(request.replace(b"HTTP/1.1", b"HTTP/1.0"))
    answer = parse(await reader.read())
    assert answer.headers["connection"] == "close"
    assert "transfer-encoding" not in answer.headers
    assert answer.events()[-1] == "[DONE]"
    writer.close()
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(encode_request("POST", "/tokenize", {"prompt": "x"}, {"expect": "100-continue"}))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def test_requests_are_remembered(quick: dict[str, object]) -> None:
    async with Simulator(SimSettings(keep_requests=3, keep_body_bytes=100, **quick)) as sim:  # type: ignore[arg-type]  # test settings
        await post(sim, "/v1/completions", b"\xff\xfe", x_mark="one")
        await post(sim, "/v1/completions", {"prompt": "x" * 200, "max_tokens": 2})
        seen = (await call(sim, "GET", "/sim/requests")).json()["requests"]
        assert [record["status"] for record in seen] == [400, 200]
        assert (seen[0]["body_encoding"], base64.b64decode(seen[0]["body"])) == ("base64", b"\xff\xfe")
        assert seen[0]["headers"]["x-mark"] == "one"
        assert (seen[1]["body_encoding"], seen[1]["body_truncated"], len(seen[1]["body"])) == ("utf-8", True, 100)
        assert seen[1]["received"] <= seen[1]["started"] <= seen[1]["first_byte"] <= seen[1]["finished"]
        assert (seen[1]["tokens_sent"], seen[1]["aborted"], seen[1]["completed"]) == (2, False, True)
        for _ in range(4):
            await chat(sim)
        assert len((await call(sim, "GET", "/sim/requests")).json()["requests"]) == 3
        assert len((await call(sim, "GET", "/sim/requests?limit=1")).json()["requests"]) == 1


async def test_stats_and_reset(sim: Simulator) -> None:
    await chat(sim, max_tokens=5)
    await chat(sim, n=0)
    await call(sim, "GET", "/health")
    stats = (await call(sim, "GET", "/sim/stats")).json()
    assert list(stats) == names(
        "requests by_path aborts completed errors running waiting max_running tokens_out connections max_connections faults"
    )
    assert (stats["requests"], stats["completed"], stats["errors"], stats["tokens_out"]) == (2, 1, 1, 5)
    assert stats["by_path"] == {"/v1/chat/completions": 2, "/health": 1}
    assert (stats["running"], stats["max_running"], stats["connections"]) == (0, 1, 1)
    await post(sim, "/sim/reset", {})
    after = (await call(sim, "GET", "/sim/stats")).json()
    assert (after["requests"], after["by_path"], after["tokens_out"]) == (0, {}, 0)
    assert not sim.app.stats.records


async def test_paths_are_bounded(sim: Simulator) -> None:
    for number in range(80):
        await call(sim, "GET", f"/made-up/{number}")
    assert len(sim.app.stats.by_path) <= 65
    assert sim.app.stats.by_path["other"] == 16


def test_the_command_says_which_address_cannot_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    told = capsys.readouterr().err
    assert told == f"lexora-sim: cannot listen on 127.0.0.1:{port}: Address already in use; name another --port or --host\n"


async def test_stopping_ends_running_answers_with_abort(quick: dict[str, object]) -> None:
    async with Simulator(SimSettings(**{**quick, "itl_ms": 5.0})) as sim:  # type: ignore[arg-type]  # test settings
        streamed = asyncio.create_task(chat(sim, max_tokens=900, ignore_eos=True, stream=True))
        whole = asyncio.create_task(chat(sim, max_tokens=900, ignore_eos=True))
        await until(lambda: sim.app.scheduler.tokens_out > 6)
        await sim.stop(grace=1.0)
        answer = await streamed
        assert answer.complete
        assert answer.events()[-2]["choices"][0]["finish_reason"] == "abort"
        assert answer.events()[-1] == "[DONE]"
        assert (await whole).json()["choices"][0]["finish_reason"] == "abort"


async def test_command_serves_and_stops_on_sigterm() -> None:
    arguments = ["--port", "0", "--model", "qwen3-32b", "--embedding-model", "e", "--itl-ms", "5"]
    root = Path(__file__).parents[3]
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "lexora_sim", *arguments], stdout=asyncio.subprocess.PIPE, cwd=root
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 10)).decode().strip()
        assert line.startswith("lexora-sim: serving qwen3-32b, e on http://127.0.0.1:")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(line.rsplit(":", 1)[1]))
        body = {**HELLO, "model": "qwen3-32b", "stream": True, "max_tokens": 900, "ignore_eos": True}
        writer.write(encode_request("POST", "/v1/chat/completions", body))
        await reader.readuntil(b'"content":" ')
        process.send_signal(signal.SIGTERM)
        rest = await asyncio.wait_for(reader.read(), 20)
        assert b'"finish_reason":"abort"' in rest
        assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        writer.close()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_sends_without_delay(sim: Simulator) -> None:
    _, writer = await asyncio.open_connection(sim.host, sim.port)
    await until(lambda: sim.app.stats.connections == 1)
    connection = next(iter(sim._connections))  # looking inside is the point here
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()
