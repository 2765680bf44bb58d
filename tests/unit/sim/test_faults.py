from __future__ import annotations

import asyncio
import json
import time

import pytest

from lexora_sim import SimSettings, Simulator
from lexora_sim.faults.fault import BadFault, parse_fault
from lexora_sim.faults.registry import FaultRegistry
from tests.unit.sim.helpers import HELLO, Answer, call, chat, complete, encode_request, post, until

ENGINE_DIED = (
    '{"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", '
    '"type": "InternalServerError", "param": null, "code": 500}}'
)


async def stream(sim: Simulator, fault: str, **fields: object) -> Answer:
    return await chat(sim, fault, stream=True, max_tokens=12, return_token_ids=True, **fields)


def test_parse() -> None:
    fault = parse_fault("die_after=3;how=fin")
    assert (fault.kind, fault.number("", 0), fault.text("how", "rst")) == ("die_after", 3, "fin")
    date = "Sun, 06 Nov 2094 08:49:37 GMT"
    assert parse_fault(f"status;code=429;retry_after={date}").options["retry_after"] == date


@pytest.mark.parametrize("text", ["", "nope", "status;code", "die_after=3;how=maybe"])
def test_bad_faults(text: str) -> None:
    with pytest.raises(BadFault):
        parse_fault(text)


async def test_bad_fault_is_refused(sim: Simulator) -> None:
    assert (await chat(sim, "nope")).json()["error"]["param"] == "sim_fault"


async def test_reset_before_any_byte(sim: Simulator) -> None:
    answer = await chat(sim, "reset")
    assert answer.status == 0
    assert not answer.complete
    assert sim.app.stats.errors == 1


async def test_header_and_body_ask_alike(sim: Simulator) -> None:
    assert (await post(sim, "/v1/chat/completions", HELLO, x_sim_fault="status;code=418")).status == 418
    assert (await chat(sim, "status;code=418")).status == 418
    assert (await call(sim, "GET", "/health", x_sim_fault="status;code=418")).status == 418


async def test_status(sim: Simulator) -> None:
    answer = await chat(sim, "status;code=503;retry_after=2")
    assert (answer.status, answer.headers["retry-after"], answer.json()["error"]["code"]) == (503, "2", 503)
    html = await chat(sim, "status;code=502;body=html")
    assert (html.status, html.headers["content-type"]) == (502, "text/html; charset=utf-8")
    assert (await chat(sim, "status;body=empty")).body == b""


async def test_wrong_bodies_with_200(sim: Simulator) -> None:
    html, broken, empty = await chat(sim, "html"), await chat(sim, "invalid_json"), await chat(sim, "empty")
    assert [answer.status for answer in (html, broken, empty)] == [200, 200, 200]
    assert html.body.startswith(b"<!DOCTYPE html>")
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(broken.body)
    assert empty.body == b""


@pytest.mark.parametrize("count", [0, 1, 5])
async def test_dies_after_tokens(sim: Simulator, count: int) -> None:
    for how in ("rst", "fin"):
        answer = await stream(sim, f"die_after={count};how={how}")
        assert (answer.status, len(answer.ids()), answer.complete) == (200, count, False)
    assert sim.app.scheduler.running == 0


async def test_dies_with_an_error_event(sim: Simulator) -> None:
    answer = await stream(sim, "die_after=4;how=error")
    assert answer.complete
    assert len(answer.ids()) == 4
    assert answer.chunks[-2:] == [f"data: {ENGINE_DIED}\n\n".encode(), b"data: [DONE]\n\n"]


async def test_dies_with_abort(sim: Simulator) -> None:
    answer = await stream(sim, "die_after=4;how=abort")
    last = answer.events()[-2]
    assert answer.complete
    assert last["choices"][0]["finish_reason"] == "abort"
    assert last["system_fingerprint"]
    assert (len(answer.ids()), answer.events()[-1]) == (4, "[DONE]")


async def test_ends_without_done(sim: Simulator) -> None:
    answer = await stream(sim, "die_after=4;how=eof")
    assert answer.complete
    assert "[DONE]" not in answer.events()
    assert answer.events()[-1]["choices"][0]["finish_reason"] is None


async def test_unary_deaths(sim: Simulator) -> None:
    assert (await chat(sim, "die_after=2")).status == 0
    assert (await chat(sim, "die_after=2;how=error")).json() == json.loads(ENGINE_DIED)
    assert (await chat(sim, "die_after=2;how=abort")).json()["choices"][0]["finish_reason"] == "abort"
    for how in ("fin", "eof"):
        answer = await chat(sim, f"die_after=2;how={how}")
        assert (answer.status, answer.complete) == (200, False)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_other_streams_die_too(sim: Simulator, path: str) -> None:
    body = {**HELLO, "input": "x", "max_tokens": 20, "stream": True, "sim_fault": "die_after=3;how=error"}
    answer = await post(sim, path, body)
    assert b"event: error\n" in answer.body
    assert b"completed" not in answer.chunks[-1]


async def test_embeddings_die_too(sim: Simulator) -> None:
    for fault, status in (("die_after=1", 0), ("die_after=1;how=error", 500), ("die_after=1;how=fin", 200)):
        answer = await post(sim, "/v1/embeddings", {"model": "embed", "input": "x", "sim_fault": fault})
        assert answer.status == status
        assert answer.complete == (status == 500)


@pytest.mark.parametrize(
    ("fault", "streamed", "expected"),
    [
        ("hang", True, b""),
        ("hang", False, b""),
        ("hang_headers", True, b"\r\n\r\n"),
        ("hang_headers", False, b"\r\n\r\n"),
        ("freeze_after=0", True, b"\r\n\r\n"),
        ("freeze_after=3", False, b""),
    ],
)
async def test_silence(sim: Simulator, fault: str, expected: bytes, *, streamed: bool) -> None:
    body = {**HELLO, "sim_fault": fault, "stream": streamed}
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(encode_request("POST", "/v1/chat/completions", body))
    if expected:
        await reader.readuntil(expected)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.05)
    assert (await call(sim, "GET", "/health")).status == 200
    writer.close()
    await until(lambda: sim.app.stats.aborts == 1)
    assert sim.app.scheduler.running == 0


async def test_freezes_after_tokens(sim: Simulator) -> None:
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    body = {**HELLO, "sim_fault": "freeze_after=3", "stream": True, "return_token_ids": True}
    writer.write(encode_request("POST", "/v1/chat/completions", body))
    for _ in range(4):
        await reader.readuntil(b"data: ")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readuntil(b"data: "), 0.05)
    assert sim.app.scheduler.running == 1
    writer.close()
    await until(lambda: sim.app.scheduler.running == 0)


async def test_drip(sim: Simulator) -> None:
    start = time.monotonic()
    await chat(sim, "drip=20", max_tokens=4)
    assert time.monotonic() - start > 0.05


@pytest.mark.parametrize("newline", ["lf", "crlf", "cr"])
async def test_split_cuts_everything(sim: Simulator, newline: str) -> None:
    whole = await complete(sim, "go", max_tokens=40, stream=True)
    pieces = await complete(sim, "go", max_tokens=40, stream=True, sim_fault=f"split;bytes=2;newline={newline}")
    assert pieces.complete
    assert max(map(len, pieces.chunks)) == 2
    mark = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}[newline]
    assert pieces.body.count(mark) >= len(whole.chunks) * 2
    assert pieces.text() == whole.text()
    assert any("\ufffd" in piece.decode("utf-8", "replace") for piece in pieces.chunks)


async def test_malformed_event(sim: Simulator) -> None:
    answer = await stream(sim, "malformed=3")
    broken = [event for event in answer.events() if isinstance(event, str) and event != "[DONE]"]
    assert len(broken) == 1
    assert answer.events()[-1] == "[DONE]"
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        (await chat(sim, "malformed")).json()


async def test_slow_body(sim: Simulator) -> None:
    start = time.monotonic()
    answer = await chat(sim, "slow_body;ms=2;bytes=40", max_tokens=2)
    assert answer.complete
    assert answer.json()["object"] == "chat.completion"
    assert time.monotonic() - start > 0.02


async def test_client_leaves_a_slow_body(sim: Simulator) -> None:
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write(encode_request("POST", "/v1/chat/completions", {**HELLO, "sim_fault": "slow_body;ms=30;bytes=1"}))
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await until(lambda: sim.app.stats.aborts == 1)


async def test_admin_faults_count_and_filter(sim: Simulator) -> None:
    rule = {"fault": "status;code=500", "count": 2, "path": "/v1/chat", "model": "tiny"}
    assert (await post(sim, "/sim/faults", rule)).json()["count"] == 2
    assert (await complete(sim, "x")).status == 200
    assert (await post(sim, "/v1/chat/completions", {**HELLO, "model": "other"})).status == 404
    assert [(await chat(sim)).status for _ in range(3)] == [500, 500, 200]
    assert sim.app.describe()["faults"] == {"status": 2}
    assert (await call(sim, "GET", "/sim/faults")).json() == {"faults": []}


async def test_admin_faults_spare_health_unless_named(sim: Simulator) -> None:
    await post(sim, "/sim/faults", {"fault": "status;code=500"})
    assert (await call(sim, "GET", "/health")).status == 200
    assert (await chat(sim)).status == 500
    await post(sim, "/sim/faults", {"fault": "status;code=501", "path": "/health"})
    assert (await call(sim, "GET", "/health")).status == 501
    assert (await call(sim, "DELETE", "/sim/faults")).status == 200
    assert (await call(sim, "GET", "/health")).status == 200


@pytest.mark.parametrize("spec", [b"[]", b"{", {"fault": "nope"}, {"fault": "hang", "count": 0}, {"fault": "hang", "path": 1}])
async def test_admin_refuses_nonsense(sim: Simulator, spec: object) -> None:
    assert (await post(sim, "/sim/faults", spec)).status == 400


def test_probability_is_repeatable() -> None:
    def hits() -> list[bool]:
        registry = FaultRegistry(seed=5)
        registry.add({"fault": "reset", "probability": 0.3})
        return [registry.pick("/v1/completions", None) is not None for _ in range(200)]

    assert hits() == hits()
    assert 30 < sum(hits()) < 90


async def test_refuses_connections_for_a_while(sim: Simulator) -> None:
    assert (await post(sim, "/sim/faults", {"fault": "refuse;ms=60"})).status == 200
    with pytest.raises(ConnectionRefusedError):
        await call(sim, "GET", "/health")
    async with asyncio.timeout(2):
        while True:
            try:
                assert (await call(sim, "GET", "/health")).status == 200
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.005)


async def test_refuse_can_drop_and_be_lifted(quick: dict[str, object]) -> None:
    async with Simulator(SimSettings(**quick)) as sim:  # type: ignore[arg-type]  # test settings
        reader, writer = await asyncio.open_connection(sim.host, sim.port)
        writer.write(encode_request("POST", "/sim/faults", {"fault": "refuse;ms=60000"}))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(encode_request("DELETE", "/sim/faults"))
        async with asyncio.timeout(2):
            while True:
                try:
                    await call(sim, "GET", "/health")
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.005)
        other_reader, other_writer = await asyncio.open_connection(sim.host, sim.port)
        await post(sim, "/sim/faults", {"fault": "refuse;ms=10;drop=1"})
        with pytest.raises(ConnectionResetError):
            await other_reader.read()
        writer.close()
        other_writer.close()
