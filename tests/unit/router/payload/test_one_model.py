"""No body may name a model to the engine that it does not name to the router."""

import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from lexora_router.errors import InvalidRequest
from lexora_router.payload.inspect import inspect_json
from lexora_router.payload.multipart import inspect_multipart
from lexora_router.payload.one_model import with_one_model

CHAT = "/v1/chat/completions"
FORM = "multipart/form-data; boundary=b"


def spelled(key: str, escaped: int) -> str:
    """A key of JSON, some of its letters escaped."""
    return "".join(f"\\u{ord(letter):04x}" if escaped >> at & 1 else letter for at, letter in enumerate(key))


KEYS = st.builds(
    spelled,
    st.sampled_from(["model", "Model", "MODEL", "mode", "model ", "modell", "m\u00f6del", "stream", "user", "n"]),
    st.integers(0, 31),
)
VALUES = st.recursive(
    st.sampled_from(["allowed", "forbidden", "model", '"model"', None, 5, True, ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["model", "Model", "a"]), inner, max_size=2),
    max_leaves=4,
)
SPACE = st.sampled_from(["", " ", "\n\t"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Objects with the same key twice, written in several ways."""
    pairs = draw(st.lists(st.tuples(KEYS, VALUES), max_size=6))
    pairs.insert(draw(st.integers(0, len(pairs))), ("model", draw(st.sampled_from(["allowed", "forbidden"]))))
    pairs.insert(draw(st.integers(0, len(pairs))), ("messages", []))
    if draw(st.booleans()):  # a large body is searched in another way
        pairs.insert(draw(st.integers(0, len(pairs))), ("pad", "x" * 20_000))
    written = [f'"{key}"{draw(SPACE)}:{draw(SPACE)}{json.dumps(value)}' for key, value in pairs]
    return ("{" + draw(SPACE) + ",".join(written) + "}").encode()


@given(bodies())
def test_the_model_that_is_read_is_the_one_that_python_s_json_reads(body: bytes) -> None:
    try:
        model = inspect_json(CHAT, body).model
    except InvalidRequest:
        return
    assert model == json.loads(body)["model"]


class _Asked(BaseModel):
    """As vLLM declares its requests."""

    model_config = ConfigDict(extra="allow")
    model: str | None = None
    messages: list[Any]


ENGINE = FastAPI()


@ENGINE.post(CHAT)
async def answer(asked: _Asked) -> dict[str, str | None]:
    return {"model": asked.model}


@settings(deadline=None)
@given(bodies())
async def test_it_is_the_one_that_the_framework_of_vllm_reads(body: bytes) -> None:
    try:
        model = inspect_json(CHAT, body).model
    except InvalidRequest:
        return
    transport = httpx.ASGITransport(ENGINE)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        for sent in (body, with_one_model("application/json", body, model or "", named=True)):
            read = await client.post(CHAT, content=sent, headers={"content-type": "application/json"})
            assert read.json() == {"model": model}


@given(bodies())
def test_an_engine_finds_that_model_whichever_key_it_takes(body: bytes) -> None:
    try:
        model = inspect_json(CHAT, body).model
    except InvalidRequest:
        return
    assert model is not None
    settled = with_one_model("application/json", body, model, named=True)
    pairs: list[tuple[str, Any]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = found  # the outermost object comes last
        return dict(found)

    json.loads(settled, object_pairs_hook=keep)
    assert [pair for pair in pairs if pair[0].lower() == "model"] == [("model", model)]
    others = {key: value for key, value in json.loads(body).items() if key.lower() != "model"}
    assert {key: value for key, value in pairs if key != "model"} == others


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"user","content":"my \\"model\\" of it"}]}',
        b'{"messages":[],"model" : "m" }',
        b'{"model":"m","messages":[{"content":"\\u65e5"}]}',
    ],
)
def test_an_ordinary_body_keeps_its_bytes(body: bytes) -> None:
    for sent in (body, body[:1] + b'"pad":"%b",' % (b"x" * 20_000) + body[1:]):
        assert with_one_model("application/json", sent, "m", named=True) is sent


def part(disposition: str, value: str) -> str:
    return f"--b\r\n{disposition}\r\n\r\n{value}\r\n"


MODEL = 'Content-Disposition: form-data; name="model"'
PARTS = st.lists(
    st.builds(
        part,
        st.sampled_from(
            [
                MODEL,
                "content-disposition: form-data; name=model",
                'Content-Disposition: form-data; name="Model"',
                'Content-Disposition: form-data; name="file"; filename="a.wav"',
                MODEL + '; filename="a"',
                MODEL + '\r\nContent-Disposition: form-data; name="file"; filename="f"',
                'Content-Disposition: form-data; name="x"\r\n' + MODEL,
                'Content-Disposition: form-data; name="x"; filename="y"\r\n' + MODEL,
            ]
        ),
        st.sampled_from(["allowed", "forbidden", ""]),
    ),
    min_size=1,
    max_size=4,
)


async def starlette(body: bytes) -> list[tuple[str, str | None]]:
    """The form's parts as vLLM's framework reads them; None for a file."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    request = Request({"type": "http", "headers": [(b"content-type", FORM.encode())]}, receive)
    form = await MultiPartParser(request.headers, request.stream()).parse()
    found = [(name, value if isinstance(value, str) else None) for name, value in form.multi_items()]
    await form.close()
    return found


@given(PARTS)
async def test_a_form_is_read_as_starlette_reads_it_and_names_its_model_once(parts: list[str]) -> None:
    body = ("".join(parts) + "--b--\r\n").encode()
    model, theirs = inspect_multipart(FORM, body).model, await starlette(body)
    texts = [value for name, value in theirs if name == "model" and value is not None]
    assert (model or "") == (texts[-1] if texts else "")
    try:
        settled = with_one_model(FORM, body, model or "default", named=bool(model))
    except InvalidRequest:
        return
    named = [(name, value) for name, value in await starlette(settled) if name.lower() == "model"]
    assert named == [("model", model or "default")]
