import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.captures import Exchange, exchanges

from lexora_contract.operations import Dialect, dialect_of
from lexora_router.engines.answer_model import ModelName
from lexora_router.engines.media_type import body_of
from lexora_router.payload.event_stream import Splitter

BEFORE_AND_AFTER: dict[str, tuple[Dialect, bytes, bytes]] = {
    "whole": (
        Dialect.OPENAI,
        b'{"id":"1" , "model" : "eng","n":9007199254740993}',
        b'{"id":"1" , "model" : "asked","n":9007199254740993}',
    ),
    "first": (Dialect.OTHER, b'{"model":"eng"}', b'{"model":"asked"}'),
    "behind a mark and blank lines": (
        Dialect.OPENAI,
        b'\xef\xbb\xbf\r\n\n{\r\n  "id": 1,\r\n  "model":\t"eng"\r\n}\r\n',
        b'\xef\xbb\xbf\r\n\n{\r\n  "id": 1,\r\n  "model":\t"asked"\r\n}\r\n',
    ),
    "a path with escapes": (Dialect.OPENAI, rb'{"model":"\/models\/e\"ng\\"}', b'{"model":"asked"}'),
    "behind content that says it": (
        Dialect.OPENAI,
        rb'{"choices":[{"message":{"content":"{\"model\":\"eng\"}\\"}}],"model":"eng"}',
        rb'{"choices":[{"message":{"content":"{\"model\":\"eng\"}\\"}}],"model":"asked"}',
    ),
    "behind content that is the word": (
        Dialect.OPENAI,
        rb'{"choices":[{"logprobs":[{"token":"model"},{"token":"\"model"},{"token":"{"}]}],"model":"eng"}',
        rb'{"choices":[{"logprobs":[{"token":"model"},{"token":"\"model"},{"token":"{"}]}],"model":"asked"}',
    ),
    "among fields of other objects": (
        Dialect.OPENAI,
        b'{"metadata":{"model":"eng"},"tools":[{"model":"eng"}],"model":"eng","more":[{"model":"eng"},{"model":{}}]}',
        b'{"metadata":{"model":"eng"},"tools":[{"model":"eng"}],"model":"asked","more":[{"model":"eng"},{"model":{}}]}',
    ),
    "behind many of them": (
        Dialect.RESPONSES,
        b"{" + b'"x":{"model":"y"},' * 200 + b'"model":"eng"}',
        b"{" + b'"x":{"model":"y"},' * 200 + b'"model":"asked"}',
    ),
    "said twice": (Dialect.OPENAI, b'{"model":"a","model":"eng"}', b'{"model":"asked","model":"asked"}'),
    "of a response": (
        Dialect.RESPONSES,
        b'{"response":{"tools":[{"model":"x"}],"model":"eng"},"x":{"model":"x"},"type":"response.created"}',
        b'{"response":{"tools":[{"model":"x"}],"model":"asked"},"x":{"model":"x"},"type":"response.created"}',
    ),
    "of a message": (
        Dialect.ANTHROPIC,
        b'{"type":"message_start","message":{"content":[],"model":"eng"}}',
        b'{"type":"message_start","message":{"content":[],"model":"asked"}}',
    ),
    "beside NaN": (Dialect.OPENAI, b'{"logprobs":NaN,"model":"eng"}', b'{"logprobs":NaN,"model":"asked"}'),
}
UNTOUCHED = [
    b"",
    b"[1]",
    b'[{"model":"eng"}]',
    b'{"model":null}',
    b'{"model":{"name":"eng"}}',
    b'{"metadata":{"model":"eng"}}',
    b'{"message":{"model":"eng"}}',
    b'{"response":{"model":"eng"}}',
    b'{"choices":[{"message":{"model":"eng"}}]}',
    b'{"message":"a text","x":{"model":"eng"}}',
    rb'{"text":"\"model\":\"eng\""}',
    rb'{"text":"{\"model\":\"eng\""}',
    b'{"says":"model"}',
    b'plain text with {"model":"eng"}',
]


def named(text: bytes, model: str = "asked", dialect: Dialect = Dialect.OPENAI) -> bytes:
    return ModelName(model, dialect).in_body(text)


@pytest.mark.parametrize("case", BEFORE_AND_AFTER)
def test_only_the_answer_s_own_model_changes(case: str) -> None:
    dialect, before, after = BEFORE_AND_AFTER[case]
    assert named(before, dialect=dialect) == after


@pytest.mark.parametrize("body", UNTOUCHED)
def test_all_else_is_untouched(body: bytes) -> None:
    assert named(body) == body


def test_a_name_is_written_as_json() -> None:
    assert named(b'{"model":"eng"}', 'a"\n犬') == '{"model":"a\\"\\n犬"}'.encode()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_each_event_is_named(end: bytes, size: int) -> None:
    """Chunks that begin alike, unlike, with fields and comments, over several lines; one at a time and together."""

    def parts(model: bytes) -> list[bytes]:
        alike = b'data: {"id":"1","model":"%b","choices":' % model
        return [
            b'\xef\xbb\xbfdata: {"id":"1","model":"%b"}' % model + end,
            b': model "eng" {' + end + b"event: x" + end + b'data: {"model":"%b"}' % model + end,
            *(alike + b'[{"token":"%d"}]}' % number + end for number in range(3)),
            alike + rb'[{"token":"model"},{"text":"\"model\":\"eng\"}"}]}' + end,
            alike + b'[{"model":"eng"}],"model":"%b"}' % model + end,
            alike + b"[]}" + end,
            b'data: {"choices":[{"model":"eng"}],"model":"%b","n":1}' % model + end,
            b'data:{"a":{' + end + b'data: "model":"eng"},' + end + b": {" + end + b'data:"model":"%b"}' % model + end,
            b'data: {"choices":[{"delta":{"content":"eng"}}]}' + end,
            b"data: [DONE]" + end,
        ]

    sent, right = ([part + end for part in parts(model)] for model in (b"eng", b"asked"))
    name = ModelName("asked", Dialect.OPENAI)
    for start in range(0, len(sent), size):
        block = b"".join(sent[start : start + size])
        assert name.in_events(block) == b"".join(right[start : start + size])


@pytest.mark.parametrize(
    "part", [b'"', rb"\"", rb'"\"', b"[", b'{"a":[', b'{"model":"', rb'"model":"\"', b'"message":{', b'[1,"model",']
)
def test_an_answer_that_makes_no_sense_takes_no_longer(part: bytes) -> None:
    """Were the time not linear, this would not end."""
    event = b'data: {"' + part * 200_000 + b'"model"\n\n'
    assert ModelName("asked", Dialect.RESPONSES).in_events(event).startswith(b'data: {"')


# -- what real engines send


def placed(value: Any, dialect: Dialect, model: str) -> Any:
    """The decoded JSON with another model, by the definition."""
    if isinstance(value, dict):
        if isinstance(value.get("model"), str):
            value["model"] = model
        inner = value.get({Dialect.RESPONSES: "response", Dialect.ANTHROPIC: "message"}.get(dialect, ""))
        if isinstance(inner, dict) and isinstance(inner.get("model"), str):
            inner["model"] = model
    return value


def texts(body: bytes, *, stream: bool) -> Iterator[Any]:
    """The JSON values of a body."""
    found = re.findall(rb"^data: ?(\{.*)", body, re.MULTILINE) if stream else [body]
    return (json.loads(text) for text in found)


CAPTURED = [
    each
    for each in exchanges("vllm", "vllm-embed", "llama-server")
    if each.status == 200 and dict(each.response_headers).get("content-type", "").startswith(("application/json", "text/event"))
]
names = st.text(st.characters(codec="utf-8"), max_size=20).map("asked {}".format)  # no answer has a text that begins so


@pytest.mark.parametrize("captured", CAPTURED, ids=lambda each: each.name)
@given(model=names, data=st.data())
def test_an_answer_of_a_real_engine(captured: Exchange, model: str, data: st.DataObject) -> None:
    """However a stream is cut: the JSON is what it would be with another model, and all other bytes are the engine's."""
    body, dialect = captured.response_body, dialect_of(captured.path)
    stream = (dict(captured.response_headers)["content-type"]).startswith("text/event")
    name = ModelName(model, dialect)
    if stream:
        body = body[: body.rfind(b"\n\n") + 2]
        cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
        splitter, pieces = Splitter(), zip([0, *cuts], [*cuts, len(body)], strict=True)
        changed = b"".join(name.in_events(splitter.feed(body[start:end])) for start, end in pieces if start < end)
    else:
        assert body_of(body, labelled=False)
        changed = name.in_body(body)
    assert list(texts(changed, stream=stream)) == [placed(each, dialect, model) for each in texts(body, stream=stream)]
    theirs = re.search(rb'"model": ?("[^"]*")', body)
    assert re.sub(rb'"asked (?:[^"\\]|\\.)*"', theirs[1] if theirs else b"", changed) == body
