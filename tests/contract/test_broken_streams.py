"""A stream that ends badly, before or after its first piece: the client gets what came, then a status, never a clean end."""

import json
from typing import Any

import pytest
from google.rpc import code_pb2

from lexora.v1 import errors_pb2, receipt_pb2
from tests.contract.messages import DONE, STREAM_FORMS, USAGE_EVENT, delta, encoded, event, receipt, streamed
from tests.support.links import Link, Outcome
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import LAST_CHUNK, Do, Step, chunk, reply, stream, stream_head

FORMS = list(STREAM_FORMS)
ERROR_500 = {"error": {"message": "EngineCore died", "type": "InternalServerError", "param": None, "code": 500}}
ERROR_400 = {"error": {"message": "Too long", "type": "BadRequestError", "param": None, "code": 400}}
FIRST = delta("a", role="assistant")


async def run(link: Link, engine: LoopEngine, form: str, *script: Step) -> Outcome:
    engine.answer(*script)
    return await link.stream(streamed(**STREAM_FORMS[form]))


def pieces(outcome: Outcome) -> list[str]:
    """The text that came, by message."""
    found = []
    for message in outcome.messages:
        match message.delta.WhichOneof("piece"):
            case "chat":
                found.append(message.delta.chat.choices[0].text)
            case "completion":
                found.append(message.delta.completion.id)
            case "frames":
                found += [json.loads(e[6:])["choices"][0]["delta"]["content"] for e in message.delta.frames.split(b"\n\n") if e]
    return found


# -- before the first piece

EARLY: dict[str, tuple[tuple[Step, ...], str, str]] = {
    "closed": ((stream_head(), Do.CLOSE), "UPSTREAM_UNREACHABLE", "closed before the end"),
    "reset": ((stream_head(), Do.RESET), "UPSTREAM_UNREACHABLE", "closed before the end"),
    "closed after a comment": ((stream_head(), chunk(b": ping\n\n"), Do.CLOSE), "UPSTREAM_UNREACHABLE", "closed"),
    "ended": ((stream_head(), LAST_CHUNK), "UPSTREAM_BROKEN", "mid-answer"),
    "an error": ((stream(event(ERROR_500), DONE),), "UPSTREAM_ERROR", "EngineCore died"),
    "a refusal": ((stream(event(ERROR_400), DONE),), "UPSTREAM_ERROR", "the engine answered 400"),
    "no JSON": ((stream(b"data: {oops\n\n", DONE),), "UPSTREAM_INVALID", "not JSON"),
    "no HTTP chunk": ((stream_head(), b"zz\r\n"), "UPSTREAM_UNREACHABLE", "not HTTP"),
    "HTML": ((reply(b"<html/>", content_type="text/html"),), "UPSTREAM_INVALID", "invalid JSON"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", EARLY)
async def test_before_the_first_piece(link: Link, engine: LoopEngine, form: str, name: str) -> None:
    script, reason, text = EARLY[name]
    outcome = await run(link, engine, form, *script)
    assert outcome.messages == []
    assert outcome.reason == reason
    assert text in outcome.failure.message
    assert outcome.failure.code == (code_pb2.INVALID_ARGUMENT if name == "a refusal" else code_pb2.UNAVAILABLE)
    assert outcome.detail(receipt_pb2.Receipt) == receipt(engine.url)


@pytest.mark.parametrize("form", FORMS)
async def test_the_engines_own_words_come_along(link: Link, engine: LoopEngine, form: str) -> None:
    refused = await run(link, engine, form, *EARLY["a refusal"][0])
    assert refused.upstream == errors_pb2.UpstreamError(status=400, content_type="application/json", body=encoded(ERROR_400))
    broken = await run(link, engine, form, stream(FIRST, event(ERROR_500), DONE))
    assert broken.upstream == errors_pb2.UpstreamError(content_type="application/json", body=encoded(ERROR_500))


# -- after it

LATE: dict[str, tuple[tuple[Step, ...], str, str]] = {
    "closed": ((Do.CLOSE,), "UPSTREAM_BROKEN", "broke in mid-answer"),
    "reset": ((Do.RESET,), "UPSTREAM_BROKEN", "broke in mid-answer"),
    "ended without [DONE]": ((LAST_CHUNK,), "UPSTREAM_BROKEN", "ended the stream in mid-answer"),
    "half an event": ((chunk(b'data: {"cho'), LAST_CHUNK), "UPSTREAM_BROKEN", "ended the stream in mid-answer"),
    "an error, then [DONE]": ((chunk(event(ERROR_500) + DONE), LAST_CHUNK), "UPSTREAM_BROKEN", "EngineCore died"),
    "a refusal": ((chunk(event(ERROR_400) + DONE), LAST_CHUNK), "UPSTREAM_BROKEN", "refused"),
    "abort": ((chunk(delta(finish="abort") + DONE), LAST_CHUNK), "UPSTREAM_BROKEN", "aborted"),
    "no HTTP chunk": ((b"zz\r\n",), "UPSTREAM_BROKEN", "broke in mid-answer"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LATE)
async def test_after_the_first_piece(link: Link, engine: LoopEngine, form: str, name: str) -> None:
    script, reason, text = LATE[name]
    outcome = await run(link, engine, form, stream_head(), chunk(FIRST + delta("b")), *script)
    assert pieces(outcome) == (["c1", "c1"] if form == "completion" else ["a", "b"])
    assert outcome.messages[0].started.receipt == receipt(engine.url)
    assert outcome.failure.code == code_pb2.UNAVAILABLE
    assert outcome.reason == reason
    assert text in outcome.failure.message
    assert outcome.detail(receipt_pb2.Receipt) == receipt(engine.url)


async def test_tokens_counted_before_the_end_are_in_the_receipt(link: Link, engine: LoopEngine) -> None:
    usage = USAGE_EVENT.replace(b'"choices":[]', b'"choices":[{"index":0,"delta":{"content":"x"}}]')
    outcome = await run(link, engine, "chat", stream_head(), chunk(usage), Do.CLOSE)
    counted: Any = outcome.detail(receipt_pb2.Receipt).usage
    assert (counted.input_tokens, counted.output_tokens) == (5, 2)


async def test_a_long_message_of_the_engine_is_no_trouble(link: Link, engine: LoopEngine) -> None:
    error = {"error": {"message": "あ" * 100_000, "code": 500}}
    outcome = await run(link, engine, "raw", stream(FIRST, event(error), DONE))
    assert pieces(outcome) == ["a"]
    assert outcome.upstream.body == encoded(error)
    assert len(outcome.failure.message) < 300
