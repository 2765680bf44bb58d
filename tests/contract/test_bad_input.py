"""Bad input of every kind: the same clear answer in every way, nothing reaches the engine, and nothing is left over."""

from collections.abc import Callable
from typing import Any

import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from lexora.v1 import (
    call_pb2,
    chat_pb2,
    completion_pb2,
    embed_pb2,
    options_pb2,
    receipt_pb2,
    router_pb2,
    sampling_pb2,
)
from tests.contract.conftest import BODY_LIMIT
from tests.contract.messages import CHAT, ID, chat, raw_call
from tests.support.links import Link, Outcome
from tests.support.loop_engine import LoopEngine

INVALID = code_pb2.INVALID_ARGUMENT


def user(**message: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"role": chat_pb2.ROLE_USER, "text": "Hi"} | message
    return {"chat": chat(messages=[chat_pb2.ChatMessage(**given)])}


def completion(**fields: Any) -> dict[str, Any]:
    return {"completion": completion_pb2.CompletionRequest(model="m", **fields)}


def raw(body: bytes, *given: str) -> dict[str, Any]:
    return {"raw": raw_call(body, *given)}


def image(**fields: Any) -> dict[str, Any]:
    part = chat_pb2.ContentPart(image=chat_pb2.ImagePart(**fields))
    return user(parts=[part])


# What is asked, the field that is to blame, and a piece of the message.
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({}, "input", "must be set"),
    "no messages": ({"chat": chat(messages=[])}, "messages", "at least one"),
    "no role": (user(role=0), "chat.messages[0].role", "known role"),
    "unknown role": (user(role=99), "chat.messages[0].role", "known role"),
    "empty part": (user(parts=[chat_pb2.ContentPart()]), "chat.messages[0].parts[0]", "must be a text"),
    "empty image": (image(), "chat.messages[0].parts[0].image", "url or data"),
    "image of no type": (image(data=b"x"), "chat.messages[0].parts[0].image.media_type", "media type"),
    "extra_json is no JSON": ({"chat": chat(extra_json="{")}, "chat.extra_json", "not valid JSON"),
    "extra_json is a list": ({"chat": chat(extra_json="[]")}, "chat.extra_json", "JSON object"),
    "extra_json is too long": ({"chat": chat(extra_json='"%s"' % ("x" * 2**20))}, "chat.extra_json", "at most"),
    "tool without a name": ({"chat": chat(tools=[chat_pb2.Tool(function={})])}, "chat.tools[0].function.name", "missing"),
    "tool's schema": (
        {"chat": chat(tools=[chat_pb2.Tool(function={"name": "f", "parameters_json": "7"})])},
        "chat.tools[0].function.parameters_json",
        "JSON object",
    ),
    "tool choice": ({"chat": chat(tool_choice=chat_pb2.ToolChoice(mode=99))}, "chat.tool_choice.mode", "known value"),
    "not a number": (
        {"chat": chat(sampling=sampling_pb2.SamplingParams(temperature=float("nan")))},
        "chat.sampling.temperature",
        "finite",
    ),
    "no prompt": (completion(), "prompt", "missing"),
    "completion's extra_json": (completion(text="x", extra_json="null"), "completion.extra_json", "JSON object"),
    "malformed JSON": (raw(b'{"model":"m",}'), "", "not valid JSON"),
    "wrong type": (raw(b'{"model":"m","messages":"Hi"}'), "messages", "array"),
    "no model": (raw(b'{"messages":[]}'), "model", "missing"),
    "no form": (raw(b"x", "/v1/audio/transcriptions", "multipart/form-data"), "", "boundary"),
}


@pytest.fixture(params=["generate", "stream"])
def call(link: Link, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls Generate or Stream of the link."""

    async def run(**fields: Any) -> Outcome:
        fields = {"options": options_pb2.CallOptions(request_id=ID)} | fields
        if request.param == "generate":
            return await link.generate(router_pb2.GenerateRequest(call=call_pb2.Call(**fields)))
        return await link.stream(router_pb2.StreamRequest(call=call_pb2.Call(**fields)))

    return run


def check(outcome: Outcome, code: int, reason: str, param: str, text: str, *, request_id: str = ID) -> None:
    """The status is this one, with exactly the details that it should have."""
    assert outcome.messages == []
    status = outcome.failure
    assert status.code == code
    assert text in status.message
    assert outcome.detail(ErrorInfo) == ErrorInfo(
        reason=reason, domain="lexora.spirrow", metadata={"request_id": request_id, "backend": ""}
    )
    fault = BadRequest.FieldViolation(field=param, description=status.message)
    assert outcome.detail(BadRequest) == (BadRequest(field_violations=[fault]) if param else None)
    assert outcome.detail(receipt_pb2.Receipt) == receipt_pb2.Receipt(request_id=request_id)
    assert len(status.details) == (3 if param else 2)


@pytest.mark.parametrize("name", CASES)
async def test_bad_input(call: Callable[..., Any], engine: LoopEngine, name: str) -> None:
    fields, param, text = CASES[name]
    check(await call(**fields), INVALID, "INVALID_REQUEST", param, text)
    assert engine.requests == []


@pytest.mark.parametrize("path", ["", "/v1/models", "/health", "/v1/chat/completions/", "/v1/../admin", "あ" * 300])
async def test_an_unknown_path(call: Callable[..., Any], engine: LoopEngine, path: str) -> None:
    check(await call(**raw(b'{"model":"m"}', path)), code_pb2.NOT_FOUND, "NOT_FOUND", "", "not an endpoint")
    assert engine.requests == []


async def test_a_body_that_is_too_large(call: Callable[..., Any], engine: LoopEngine) -> None:
    body = b'{"model":"m","messages":[],"x":"%b"}' % (b"x" * BODY_LIMIT)
    outcome = await call(**raw(body))
    check(outcome, code_pb2.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", "", f"at most {BODY_LIMIT}")
    assert engine.requests == []


@pytest.mark.parametrize("name", ["x" * 129, "two words", "line\nbreak", "名前", "\x00"])
async def test_a_bad_request_id_is_refused_and_not_repeated(call: Callable[..., Any], engine: LoopEngine, name: str) -> None:
    options = options_pb2.CallOptions(request_id=name)
    outcome = await call(options=options, raw=raw_call())
    made = outcome.detail(receipt_pb2.Receipt).request_id
    assert len(made) == 32
    check(outcome, INVALID, "INVALID_REQUEST", "options.request_id", "visible ASCII", request_id=made)
    assert engine.requests == []


async def test_generate_gives_no_stream(link: Link, engine: LoopEngine) -> None:
    request = router_pb2.GenerateRequest(
        call=call_pb2.Call(
            options=options_pb2.CallOptions(request_id=ID), raw=raw_call(b'{"model":"m","messages":[],"stream":true}', CHAT)
        )
    )
    check(await link.generate(request), INVALID, "INVALID_REQUEST", "stream", "call Stream")
    assert engine.requests == []


EMBEDS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "texts"),
    "no ids": ({"token_ids": {}}, "texts"),
    "extra_json": ({"texts": {"values": ["a"]}, "extra_json": "{"}, "extra_json"),
}


@pytest.mark.parametrize("name", EMBEDS)
async def test_bad_input_of_embed(link: Link, engine: LoopEngine, name: str) -> None:
    fields, param = EMBEDS[name]
    outcome = await link.embed(embed_pb2.EmbedRequest(options=options_pb2.CallOptions(request_id=ID), model="vec", **fields))
    check(outcome, INVALID, "INVALID_REQUEST", param, "")
    assert engine.requests == []
