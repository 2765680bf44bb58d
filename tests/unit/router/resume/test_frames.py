import json

import pytest

from lexora_router.errors import UpstreamInvalid
from lexora_router.payload.event_stream import data_of
from lexora_router.resume.fast_chunk import Glance
from lexora_router.resume.frames import read_chunk, read_object, without_ids

CHAT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"%b"},'
    b'"logprobs":null,"finish_reason":null,"token_ids":%b}]}\n\n'
)
COMPLETION = (
    b'data: {"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"%b","logprobs":null,'
    b'"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":%b}]}\n\n'
)


def test_ids_become_null_and_nothing_else_changes() -> None:
    for shape in (CHAT, COMPLETION):
        said = rb"\"token_ids\":[1]"
        assert without_ids(shape % (said, b"[1,2]")) == shape % (said, b"null")
    first = b'data: {"choices":[{"delta":{"role":"assistant"}}],"prompt_token_ids":%b,"prompt_text":null}\n\n'
    assert without_ids(first % b"[]") == first % b"null"


def test_ids_in_another_style_of_json() -> None:
    event = b'data: {"choices": [{"index": 0, "token_ids": [1, 2], "x": 1}], "prompt_token_ids": [3]}\n\n'
    found = json.loads(data_of(without_ids(event)))
    assert found == {"choices": [{"index": 0, "token_ids": None, "x": 1}], "prompt_token_ids": None}


def test_what_is_no_chunk() -> None:
    assert read_chunk(b'{"choices":[{"token_ids":[-1]}]}') is None
    assert read_chunk(b'{"choices":[{"token_ids":[4294967296]}]}') is None
    assert read_chunk(b'{"choices":3}') is None
    with pytest.raises(UpstreamInvalid):
        read_chunk(b'{"choices":')
    for broken in (b'{"choices":', b'{"a":"\xff"}', b'{"a":' + b"[" * 100_000, b"[]"):
        with pytest.raises(UpstreamInvalid):
            read_object(broken)


@pytest.mark.parametrize("shape", [CHAT, COMPLETION])
def test_a_glance_at_a_plain_chunk(shape: bytes) -> None:
    glance = Glance()
    event = shape % ("日本".encode(), b"[12]")
    assert glance.look(event) is None
    glance.learn(event)
    assert glance.look(event) == ("日本".encode(), b"12")
    assert glance.look(shape % (b"", b"[7]")) == (b"", b"7")
    assert glance.write(b"x", b"12") == shape % (b"x", b"[12]")
    assert glance.write(b"x", None) == shape % (b"x", b"null")


@pytest.mark.parametrize("shape", [CHAT, COMPLETION])
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (rb"a\"b", b"[1]"),
        (rb"a\nb", b"[1]"),
        (b'a","reasoning":"b', b"[1]"),
        (b"a", b"[1,2]"),
        (b"a", b"[]"),
        (b"a", b"null"),
        (b"a", b"[99999999999]"),
        (b"a", b"[-1]"),
    ],
)
def test_everything_else_is_looked_at_closely(shape: bytes, text: bytes, ids: bytes) -> None:
    glance = Glance()
    glance.learn(shape % (b"a", b"[1]"))
    assert glance.look(shape % (text, ids)) is None
    assert glance.look((shape % (b"a", b"[1]")) * 2) is None
    assert glance.look((shape % (b"a", b"[1]")).replace(b'"finish_reason":null', b'"finish_reason":"stop"')) is None
