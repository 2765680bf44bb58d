import asyncio
import json
import time

import pytest
from tests.support.raw_server import LAST_CHUNK, Do, RawServer, Step, chunk, closed_port, reply, stream, stream_head
from tests.unit.router.engines.engine import engine
from tests.unit.router.support import CHAT, Client, Frames, make_call

from lexora_contract.answer import Head, Usage
from lexora_router.engines import streamed_answer
from lexora_router.errors import UpstreamBroken, UpstreamFailure, UpstreamInvalid, UpstreamRefused, UpstreamUnreachable

DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n'
ANSWER = b'{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":5,"completion_tokens":7}}'


def content(text: str, finish: str = "null") -> bytes:
    return f'data: {{"choices":[{{"delta":{{"content":"{text}"}},"finish_reason":{finish}}}]}}\n\n'.encode()


A, B = content("a"), content("b")


async def failed_unary(answer_bytes: bytes, path: str = CHAT, **fields: object) -> UpstreamFailure:
    async with RawServer([answer_bytes, Do.CLOSE]) as server, engine(server.url, **fields) as main:
        with pytest.raises(UpstreamFailure) as raised:
            await main.unary(path=path)
        return raised.value


# -- whole answers


async def test_an_answer_goes_through_with_its_bytes_and_its_usage() -> None:
    async with RawServer([reply(ANSWER)]) as server, engine(server.url) as main:
        call, client = make_call(stream=False), Client()
        await main.ask(call, client)
        [event] = client.events
    assert (event.head.status, event.head.content_type, event.body) == (200, "application/json", ANSWER)  # type: ignore[union-attr]  # a Reply
    assert call.receipt.usage == Usage(5, 7)
    assert call.started < call.receipt.first_event_at <= time.monotonic()


async def test_json_of_another_shape_goes_through() -> None:
    async with RawServer([reply(b'[{"score":1}]')]) as server, engine(server.url) as main:
        assert (await main.unary(path="/score")).body == b'[{"score":1}]'


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
async def test_a_transcript_may_be_text(path: str) -> None:
    async with (
        RawServer([reply(b"1\n00:00 --> 00:01\nhello", content_type="text/plain")]) as server,
        engine(server.url) as main,
    ):
        assert (await main.unary(path=path)).body.endswith(b"hello")


async def test_a_page_is_no_transcript() -> None:
    error = await failed_unary(reply(b"<html>hello</html>", content_type="text/html"), path="/v1/audio/transcriptions")
    assert isinstance(error, UpstreamInvalid)
    assert "a page (text/html)" in error.message


async def test_hop_by_hop_and_own_headers_stay_here() -> None:
    kept = [("x-ratelimit-remaining-requests", "7"), ("openai-processing-ms", "12")]
    dropped = (
        "connection: keep-alive\r\nkeep-alive: timeout=5\r\nserver: uvicorn\r\ndate: now\r\nset-cookie: a=b\r\n"
        "x-request-id: theirs\r\naccess-control-allow-origin: *\r\nVary: Origin\r\n"
    )
    lines = dropped + "".join(f"{name}: {value}\r\n" for name, value in kept)
    async with RawServer([reply(ANSWER, headers=lines)]) as server, engine(server.url) as main:
        assert (await main.unary()).head.headers == tuple(kept)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (reply(b"<html>hello</html>", content_type="text/html; charset=utf-8"), r"200 with invalid JSON \(text/html\)"),
        (reply(b'{"choices":['), r"200 with invalid JSON \(application/json\)"),
        (reply(b"nonsense", content_type=""), r"200 with invalid JSON \(no content type\)"),
        (reply(b""), r"answered 200 with an empty body"),
        (reply(b"", status="302 Found", headers="location: http://elsewhere/\r\n"), r"a redirect \(302\); check its url"),
        (reply(b"<html>", status="500 Oops", content_type="text/html"), r"500 without a JSON error \(text/html\)"),
        (reply(b"", status="503 Busy", content_type=""), r"503 without a JSON error \(no content type\)"),
        (reply(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), r"invalid JSON"),
    ],
)
async def test_what_no_engine_should_answer(sent: bytes, words: str) -> None:
    error = await failed_unary(sent)
    assert isinstance(error, UpstreamInvalid)
    with pytest.raises(UpstreamInvalid, match=r"^Backend `main` at http://127.0.0.1:\d+ .*" + words):
        raise error


async def test_an_aborted_answer_is_none() -> None:
    error = await failed_unary(reply(b'{"choices":[{"message":{"content":"h"},"finish_reason":"abort"}]}'))
    assert isinstance(error, UpstreamBroken)


async def test_an_answer_larger_than_allowed() -> None:
    error = await failed_unary(reply(b'"' + b"x" * 2000 + b'"'), server={"max_response_bytes": 1000})
    assert isinstance(error, UpstreamInvalid)
    assert "more than 1000 bytes" in error.message


async def test_an_answer_of_just_the_size_allowed() -> None:
    limits = {"max_response_bytes": len(ANSWER)}
    async with RawServer([reply(ANSWER)]) as server, engine(server.url, server=limits) as main:
        assert (await main.unary()).body == ANSWER


async def test_a_large_answer_in_many_pieces() -> None:
    body = json.dumps({"data": ["x" * 100] * 20_000}).encode()
    pieces = [reply(body)[i : i + 65_536] for i in range(0, len(reply(body)), 65_536)]
    async with RawServer(pieces) as server, engine(server.url) as main:
        assert (await main.unary()).body == body


# -- refusals


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (400, "application/json", b'{"error": {"message": "no", "type": "BadRequestError", "param": null, "code": 400}}'),
        (401, "application/json", b'{"error":"Unauthorized"}'),
        (404, "application/json", b'{"detail":"Not Found"}'),
        (422, "text/plain; charset=utf-8", b"Unprocessable \xff"),
        (429, "", b""),
        (500, "application/json", b'{"error":{"message":"boom","code":500}}'),
        (503, "text/html", b'{"error":"busy"}'),
    ],
)
async def test_an_engine_s_own_error_stays_as_it_is(status: int, content_type: str, body: bytes) -> None:
    error = await failed_unary(reply(body, status=f"{status} X", content_type=content_type, headers="retry-after: 7\r\n"))
    assert isinstance(error, UpstreamRefused)
    assert (error.http_status, error.content_type, error.body) == (status, content_type, body)
    assert error.headers == (("retry-after", "7"),)


# -- streams


async def test_a_stream_goes_through_and_its_usage_is_known_but_hidden() -> None:
    async with RawServer([stream(A, B, USAGE, DONE)]) as server, engine(server.url) as main:
        call, events, data = await main.stream()
    assert events[0] == Head(200, "text/event-stream; charset=utf-8")
    assert data == A + B + DONE
    assert call.receipt.usage == Usage(5, 7)


@pytest.mark.parametrize("fields", [{"include_usage": True}, {"path": "/v1/responses-like"}])
async def test_usage_is_hidden_only_when_the_router_asked_for_it(fields: dict[str, object]) -> None:
    async with RawServer([stream(A, USAGE, DONE)]) as server, engine(server.url) as main:
        call, _, data = await main.stream(**fields)
    assert data == A + USAGE + DONE
    assert call.receipt.usage == Usage(5, 7)


async def test_usage_is_not_hidden_from_a_backend_that_is_not_asked() -> None:
    async with RawServer([stream(A, USAGE, DONE)]) as server, engine(server.url, stream_usage=False) as main:
        assert (await main.stream())[2] == A + USAGE + DONE


ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":%s},"finish_reason":null}]}\n\n'


@pytest.mark.parametrize(
    ("pieces", "events"),
    [
        ([A, B], 2),
        ([ROLE % b'""', A, B], 2),
        ([ROLE % b"null", A, B], 2),
        ([ROLE % b'""' + A, B], 2),
        ([ROLE % b'"hi"', A], 2),
        ([A, ROLE % b'""', B], 3),
    ],
    ids=["none", "empty", "null", "in one piece with a token", "with a word", "not the first one"],
)
async def test_the_event_that_names_the_speaker_is_no_token(pieces: list[bytes], events: int) -> None:
    async with RawServer([stream(*pieces), Do.CLOSE]) as server, engine(server.url) as main:
        call = make_call()
        with pytest.raises(UpstreamBroken):
            await main.ask(call, Client())
    assert call.receipt.events == events


PIECES = {
    "/v1/messages": (
        b'event: message_start\ndata: {"type":"message_start","message":{"role":"assistant","content":[]}}\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"\\"content_block_delta\\""}}\n\n',
    ),
    "/v1/responses": (
        b'event: response.created\ndata: {"type":"response.created","response":{}}\n\n',
        b'event: response.output_text.delta\ndata: {"type": "response.output_text.delta", "delta": ".delta\\""}\n\n',
    ),
}


@pytest.mark.parametrize("path", PIECES)
async def test_what_frames_an_answer_is_no_token(path: str) -> None:
    opening, piece = PIECES[path]
    async with RawServer([stream(opening, piece, piece + piece), Do.CLOSE]) as server, engine(server.url) as main:
        call, client = make_call(path=path), Client()
        with pytest.raises(UpstreamBroken):
            await main.ask(call, client)
    assert client.data == opening + piece * 3
    assert call.receipt.events == 3


async def test_a_stream_in_single_bytes_comes_out_whole() -> None:
    whole = stream(content("日本語"), USAGE, DONE)
    async with RawServer([bytes([byte]) for byte in whole]) as server, engine(server.url) as main:
        assert (await main.stream())[2] == content("日本語") + DONE


async def test_each_event_is_handed_over_when_it_comes() -> None:
    gate = asyncio.Event()
    script: list[Step] = [stream_head() + chunk(A), gate, chunk(DONE) + LAST_CHUNK]
    async with RawServer(script) as server, engine(server.url) as main:
        client = Client()
        task = asyncio.create_task(main.ask(make_call(), client))
        await client.got(2)
        assert client.events[1] == Frames(A)
        gate.set()
        await task
    assert client.data == A + DONE


async def test_nothing_is_emitted_before_the_engine_s_first_event() -> None:
    gate = asyncio.Event()
    script: list[Step] = [stream_head() + chunk(b": ping\n\n"), gate, chunk(A + DONE) + LAST_CHUNK]
    async with RawServer(script) as server, engine(server.url) as main:
        call, client = make_call(), Client()
        task = asyncio.create_task(main.ask(call, client))
        await server.wait_requests(1)
        await asyncio.sleep(0.02)  # time for a wrong event to show
        assert (client.events, call.receipt.first_event_at) == ([], 0.0)
        gate.set()
        await task
    assert client.data == b": ping\n\n" + A + DONE


async def test_comments_beyond_the_bound_are_left_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_answer, "MAX_HELD_BYTES", 20)
    gates = [asyncio.Event() for _ in range(3)]
    script: list[Step] = [stream_head()]
    for gate in gates:
        script += [chunk(b": waiting\n\n"), gate]  # 11 bytes
    async with RawServer([*script, chunk(A + DONE) + LAST_CHUNK]) as server, engine(server.url) as main:
        client = Client()
        task = asyncio.create_task(main.ask(make_call(), client))
        for gate in gates:
            await asyncio.sleep(0.01)  # each comment in a read of its own
            gate.set()
        await task
    assert client.data == b": waiting\n\n" + A + DONE


async def test_an_end_that_lags_behind_done_costs_the_connection_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_answer, "LINGER_SECONDS", 0.02)
    async with RawServer([stream_head() + chunk(A + DONE), Do.HANG]) as server, engine(server.url) as main:
        assert (await main.stream())[2] == A + DONE
        await server.wait_lost()


@pytest.mark.parametrize("end", [Do.HANG, Do.RESET, Do.CLOSE])
@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("lacking", [1, 2])
async def test_done_without_its_empty_line_ends_a_stream_whose_connection_does_not(
    monkeypatch: pytest.MonkeyPatch, end: Do, size: int, lacking: int
) -> None:
    monkeypatch.setattr(streamed_answer, "LINGER_SECONDS", 0.02)
    sent = (A + DONE)[:-lacking]
    pieces = [chunk(sent[at : at + size]) for at in range(0, len(sent), size)]
    async with RawServer([stream_head(), *pieces, end]) as server, engine(server.url) as main:
        assert (await main.stream())[2] == A + DONE


async def test_a_long_pause_in_an_event_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_answer, "LINGER_SECONDS", 0.02)
    gate = asyncio.Event()
    said = content("data: [DONE]")
    script: list[Step] = [stream_head(), chunk(A + said[:-1]), gate, chunk(said[-1:] + DONE), LAST_CHUNK]
    async with RawServer(script) as server, engine(server.url) as main:
        task = asyncio.create_task(main.stream())
        await asyncio.sleep(0.1)
        gate.set()
        assert (await task)[2] == A + said + DONE


@pytest.mark.parametrize("end", [Do.RESET, Do.CLOSE])
async def test_a_connection_that_breaks_after_done_costs_nothing(end: Do) -> None:
    async with RawServer([stream_head() + chunk(A + DONE), end]) as server, engine(server.url) as main:
        client = Client()
        await main.ask(make_call(), client)
    assert client.data == A + DONE


async def test_nobody_there() -> None:
    async with engine(f"http://127.0.0.1:{closed_port()}") as main:
        with pytest.raises(UpstreamUnreachable, match=r"Backend `main` at http://127.0.0.1:\d+: "):
            await main.unary()
        assert main.endpoint.condition.healthy is False
        assert main.endpoint.condition.reason
