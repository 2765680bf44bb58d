import asyncio
import json
from typing import Any

import pytest
from tests.support.paths import JSON_PATHS
from tests.support.raw_server import LAST_CHUNK, Do, RawServer, chunk, reply, stream, stream_head
from tests.unit.router.engines.engine import UNARY, engine
from tests.unit.router.support import Client, FakeLease, make_call

from lexora_router.errors import InvalidRequest, UpstreamUnreachable
from lexora_router.fleet import endpoint

DONE = b"data: [DONE]\n\n"
EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
STREAM = stream(EVENT, DONE)


@pytest.mark.parametrize("name", ["content_type", "id", "trace"])
async def test_a_line_break_in_a_header_never_goes_up(name: str) -> None:
    evil = "a\r\nx-evil: 1"
    value = (("traceparent", evil),) if name == "trace" else evil
    async with RawServer([reply(b"{}")]) as server, engine(server.url) as main:
        with pytest.raises(InvalidRequest):
            await main.unary(**{name: value})
        assert server.requests == []


async def test_letters_that_no_header_can_carry_do_no_harm() -> None:
    async with RawServer([reply(b"{}")]) as server, engine(server.url) as main:
        await main.unary(content_type="application/json; x=日本")
        assert server.requests[0].header("content-type") == "application/json; x=??"


async def test_the_mapped_model_replaces_the_asked_one_and_nothing_else() -> None:
    async with RawServer([reply(b"{}")]) as server, engine(server.url, model_mapping={"m": "engine-m"}) as main:
        await main.unary(body=b'{"seed":9007199254740993,"model":"m","messages":[],"stop":null}')
        assert server.requests[0].body == b'{"seed":9007199254740993,"model":"engine-m","messages":[],"stop":null}'


async def test_the_mapped_model_of_a_form() -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b\r\n'
        b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n\x00\xff\r\n--b--\r\n'
    )
    async with RawServer([reply(b"{}")]) as server, engine(server.url, model_mapping={"m": "whisper"}) as main:
        await main.unary(path="/v1/audio/transcriptions", content_type="multipart/form-data; boundary=b", body=form)
        assert server.requests[0].body == form.replace(b"\r\nm\r\n", b"\r\nwhisper\r\n")


@pytest.mark.parametrize(
    ("changes", "fields", "asked"),
    [
        ({}, {}, True),
        ({"include_usage": True}, {}, False),
        ({"stream": False, "body": UNARY}, {}, False),
        ({"path": "/v1/responses"}, {}, False),
        ({}, {"stream_usage": False}, False),
    ],
)
async def test_usage_is_asked_for_where_it_must_be(changes: dict[str, object], fields: dict[str, object], asked: bool) -> None:
    call = make_call(**changes)
    answer = reply(b"{}") if not call.stream else stream(EVENT, b'data: {"type":"response.completed"}\n\n', DONE)
    async with RawServer([answer]) as server, engine(server.url, **fields) as main:
        await main.ask(call, Client())
        sent = server.requests[0].body
    if asked:
        assert json.loads(sent)["stream_options"] == {"include_usage": True}
    else:
        assert sent == call.body


SCHEDULED = {"scheduling_policy": "priority"}


@pytest.mark.parametrize(("priority", "sent"), [(100, -50), (70, -20), (50, 0), (0, 50)])
async def test_the_priority_goes_to_an_engine_that_schedules_by_it_in_its_own_polarity(priority: int, sent: int) -> None:
    body = b'{"seed":9007199254740993,"model":"m","messages":[],"stop":null}'
    async with RawServer([reply(b"{}")]) as server, engine(server.url, **SCHEDULED) as main:
        await main.unary(body=body, priority=priority)
        assert server.requests[0].body == body.removesuffix(b"}") + b',"priority":%d}' % sent


async def test_the_client_s_own_field_is_replaced_by_what_the_tenant_may_ask() -> None:
    body = b'{"model":"m","priority":-1000,"messages":[]}'
    async with RawServer([reply(b"{}")]) as server, engine(server.url, **SCHEDULED) as main:
        await main.unary(body=body, priority=30)
        assert server.requests[0].body == b'{"model":"m","priority":20,"messages":[]}'


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({}, {"priority": 100}),
        ({"scheduling_policy": "fcfs"}, {"priority": 100}),
        (SCHEDULED, {"priority": None}),
        (SCHEDULED, {"priority": 100, "path": "/tokenize"}),
    ],
)
async def test_the_priority_is_not_sent_where_nobody_takes_it(fields: dict[str, Any], changes: dict[str, Any]) -> None:
    async with RawServer([reply(b"{}")]) as server, engine(server.url, **fields) as main:
        await main.unary(**changes)
        assert server.requests[0].body == UNARY


UNQUEUED = {
    "/tokenize",
    "/detokenize",
    "/v2/embed",
    "/v1/messages/count_tokens",
    "/v1/chat/completions/render",
    "/v1/completions/render",
}
QUEUED = sorted(set(JSON_PATHS) - UNQUEUED)
OWN = b'{"seed":9007199254740993,"priority":-1000,"model":"m","stop":null}'
WITHOUT = b'{"seed":9007199254740993,"model":"m","stop":null}'


@pytest.mark.parametrize("path", QUEUED)
async def test_the_priority_goes_with_all_that_waits_in_the_engine_s_queue(path: str) -> None:
    async with RawServer([reply(b"{}")], [reply(b"{}")]) as server, engine(server.url, **SCHEDULED) as main:
        await main.unary(path=path, priority=30, body=WITHOUT)
        await main.unary(path=path, priority=30, body=OWN, own_priority=True)
        added, replaced = (request.body for request in server.requests)
    assert added == WITHOUT.removesuffix(b"}") + b',"priority":20}'
    assert replaced == OWN.replace(b"-1000", b"20")


@pytest.mark.parametrize(("fields", "paths"), [({}, sorted(JSON_PATHS)), (SCHEDULED, sorted(UNQUEUED))])
async def test_a_client_s_own_priority_never_reaches_vllm(fields: dict[str, Any], paths: list[str]) -> None:
    async with RawServer(*[[reply(b"{}")]] * len(paths)) as server, engine(server.url, **fields) as main:
        for path in paths:
            await main.unary(path=path, priority=100, body=OWN, own_priority=True)
        assert [request.body for request in server.requests] == [WITHOUT] * len(paths)


async def test_what_a_priority_means_to_other_engines_is_theirs_to_say() -> None:
    async with RawServer([reply(b"{}")]) as server, engine(server.url, type="openai_compatible") as main:
        await main.unary(priority=100, body=OWN, own_priority=True)
        assert server.requests[0].body == OWN


async def test_priority_usage_and_the_mapped_model_go_together() -> None:
    fields = {"model_mapping": {"m": "engine-m"}} | SCHEDULED
    async with RawServer([STREAM]) as server, engine(server.url, **fields) as main:
        await main.stream(priority=100)
        sent = json.loads(server.requests[0].body)
    assert sent == {
        "model": "engine-m",
        "messages": [],
        "stream": True,
        "priority": -50,
        "stream_options": {"include_usage": True},
    }


async def test_an_answer_s_first_token_is_told_to_the_lease_once() -> None:
    async with RawServer([stream(EVENT, EVENT, DONE)], [reply(b"{}")]) as server, engine(server.url) as main:
        for changes in ({}, {"stream": False, "body": UNARY}):
            lease = FakeLease()
            await main.ask(make_call(lease=lease, **changes), Client())
            assert lease.first_tokens == 1


async def test_a_base_with_a_path_keeps_it() -> None:
    async with RawServer([reply(b"{}")]) as server, engine(f"{server.url}/proxy/a") as main:
        await main.unary()
        assert server.requests[0].target == "/proxy/a/v1/chat/completions"


async def test_a_connection_is_used_again_after_answers_streams_and_refusals() -> None:
    refusal = reply(b'{"error":"no"}', status="400 No")
    async with RawServer([reply(b"{}")], [STREAM], [refusal], [STREAM], [reply(b"{}")]) as server, engine(server.url) as main:
        await main.unary()
        await main.stream()
        with pytest.raises(Exception, match="400"):
            await main.unary()
        await main.stream()
        await main.unary()
        assert (server.connections, len(server.requests)) == (1, 5)


async def test_the_end_of_a_stream_may_come_after_its_done_and_the_connection_is_kept() -> None:
    script = [stream_head(), chunk(EVENT), chunk(DONE), LAST_CHUNK]
    async with RawServer(script) as server, engine(server.url) as main:
        await main.stream()
        await main.stream()
        assert server.connections == 1


async def test_a_connection_is_not_used_again_when_the_engine_says_so() -> None:
    async with RawServer([reply(b"{}", headers="connection: close\r\n"), Do.HANG], [reply(b"{}")]) as server:
        async with engine(server.url) as main:
            await main.unary()
            await main.unary()
        assert server.connections == 2


async def test_calls_at_the_same_time_have_connections_of_their_own() -> None:
    gate = asyncio.Event()
    async with RawServer([gate, reply(b"{}")]) as server, engine(server.url) as main:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(main.unary())
            await server.wait_requests(5)
            gate.set()
        assert server.connections == 5


STREAMING = [stream_head() + chunk(EVENT)]


async def test_a_sink_that_fails_closes_the_connection_too() -> None:
    class Broken(Client):
        def frames(self, data: bytes) -> None:
            raise ZeroDivisionError

    async with RawServer([*STREAMING, Do.HANG]) as server, engine(server.url) as main:
        with pytest.raises(ZeroDivisionError):
            await main.ask(make_call(), Broken())
        await server.wait_lost()


@pytest.mark.parametrize("end", [Do.RESET, Do.CLOSE])
async def test_a_connection_that_breaks_before_the_answer(end: Do) -> None:
    async with RawServer([end]) as server, engine(server.url) as main:
        with pytest.raises(UpstreamUnreachable):
            await main.unary()
        assert main.endpoint.condition.healthy is None  # it was there: a probe shall judge


async def test_clients_that_invent_models_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_CACHED_HEADS", 4)
    async with RawServer([reply(b"{}")]) as server, engine(server.url) as main:
        for number in range(10):
            await main.unary(model=f"invented-{number}")
        assert len(main.endpoint._heads) == 4
        assert len(server.requests) == 10
