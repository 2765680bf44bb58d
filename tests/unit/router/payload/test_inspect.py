import json
import timeit
from typing import Any

import pytest

from lexora_router.errors import InvalidRequest
from lexora_router.payload.inspect import inspect_json
from lexora_router.payload.json_object import without_bom
from lexora_router.payload.rewrite import with_model, with_stream_usage

CHAT = "/v1/chat/completions"
NEEDED = {
    "/v1/chat/completions": {"messages": []},
    "/v1/completions": {"prompt": "x"},
    "/v1/embeddings": {"input": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": []},
}


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": []} | fields).encode()


def refused(path: str, body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        inspect_json(path, body)
    return caught.value


# --- what is read


def test_reads_the_fields_of_a_decision():
    body = chat(stream=True, user="u", max_tokens=7, n=2, priority=-3, stream_options={"include_usage": True, "x": 1})
    fields = inspect_json(CHAT, body)
    assert (fields.model, fields.stream, fields.user, fields.max_tokens) == ("m", True, "u", 7)
    assert (fields.n, fields.priority, fields.include_usage) == (2, -3, True)


def test_absent_and_null_are_the_same_to_a_decision():
    names = ("stream", "user", "max_tokens", "n", "priority", "stream_options", "max_completion_tokens")
    assert inspect_json(CHAT, chat(**dict.fromkeys(names))) == inspect_json(CHAT, chat())
    assert inspect_json(CHAT, chat(stream_options={"include_usage": None})).include_usage is False


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_any_name_of_the_token_limit(name: str):
    assert inspect_json(CHAT, chat(**{name: 5})).max_tokens == 5


def test_numbers_beyond_64_bits_and_whole_floats_are_integers():
    assert inspect_json(CHAT, chat(max_tokens=10**40)).max_tokens == 10**40
    assert inspect_json(CHAT, chat(max_tokens=16.0)).max_tokens == 16


@pytest.mark.parametrize("value", ["true", "True", "on", "1", "y", "Yes", "t", 1, 1.0, True])
def test_booleans_are_taken_as_pydantic_takes_them(value: object):
    assert inspect_json(CHAT, chat(stream=value)).stream is True
    assert inspect_json(CHAT, chat(stream_options={"include_usage": value})).include_usage is True


@pytest.mark.parametrize("value", ["false", "off", "0", "no", 0, 0.0])
def test_so_are_those_that_say_no(value: object):
    assert inspect_json(CHAT, chat(stream=value)).stream is False


@pytest.mark.parametrize("value", ["16", " 16 ", "16.0", "+16", "1_6", 16.0])
def test_integers_are_taken_as_pydantic_takes_them(value: object):
    fields = inspect_json(CHAT, chat(max_tokens=value, n=value, priority=value))
    assert (fields.max_tokens, fields.n, fields.priority) == (16, 16, 16)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_other_encodings_of_json_are_refused_by_name(encoding: str):
    error = refused(CHAT, chat().decode().encode(encoding))
    assert error.message == f"The body is {encoding[:6].upper()}; JSON is sent as UTF-8 (RFC 8259, section 8.1)."


def test_a_byte_order_mark_is_left_out():
    assert without_bom(b"\xef\xbb\xbf{}") == without_bom(b"{}") == b"{}"


def test_the_last_of_two_equal_keys_counts():
    body = b'{"model":1,"messages":0,"model":"b","stream":"x","stream":true,"messages":[]}'
    fields = inspect_json(CHAT, body)
    assert (fields.model, fields.stream) == ("b", True)


def test_an_escaped_key_is_the_same_key():
    assert inspect_json(CHAT, b'{"mod\\u0065l":"x","messages":[]}').model == "x"


def test_elsewhere_the_model_may_be_missing():
    assert inspect_json("/tokenize", b'{"prompt":"x"}').model is None
    assert inspect_json("/tokenize", b'{"model":null,"prompt":{"any":1}}').model is None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"messages": []}),
        ("/v1/completions", {"prompt_embeds": "x"}),
        ("/v1/responses", {"prompt": {}}),
    ],
)
def test_what_an_engine_takes_instead(path: str, body: dict[str, Any]):
    assert inspect_json(path, json.dumps({"model": "m"} | body).encode()).model == "m"


# --- what is refused


@pytest.mark.parametrize("path", NEEDED)
@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": ""}])
def test_missing_model(path: str, model: dict[str, Any]):
    assert refused(path, json.dumps(NEEDED[path] | model).encode()).param == "model"


@pytest.mark.parametrize("path", NEEDED)
@pytest.mark.parametrize("null", [True, False])
def test_missing_content(path: str, null: bool):
    (name,) = NEEDED[path]
    error = refused(path, json.dumps({"model": "m"} | ({name: None} if null else {})).encode())
    assert (error.param, error.message) == (name, f"{name} is missing")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", 1),
        ("model", ["m"]),
        ("user", 5),
        ("messages", "hi"),
        ("messages", {}),
        ("messages", 3),
        ("stream", "maybe"),
        ("stream", " true"),
        ("stream", 2),
        ("stream", []),
        ("max_tokens", "ten"),
        ("max_tokens", "1e3"),
        ("max_tokens", "1" * 5000),
        ("max_tokens", 1.5),
        ("max_completion_tokens", []),
        ("priority", "high"),
        ("stream_options", True),
        ("stream_options", []),
    ],
)
def test_wrong_type(name: str, value: object):
    error = refused(CHAT, chat(**{name: value}))
    assert error.param == name
    assert name in error.message


def test_wrong_type_inside_stream_options():
    assert refused(CHAT, chat(stream_options={"include_usage": "maybe"})).param == "stream_options.include_usage"


@pytest.mark.parametrize("prompt", ["1", "true", "{}"])
def test_wrong_type_of_prompt(prompt: str):
    assert refused("/v1/completions", f'{{"model":"m","prompt":{prompt}}}'.encode()).param == "prompt"


def test_numbers_out_of_every_range():
    assert refused(CHAT, b'{"model":"m","messages":[],"max_tokens":' + b"1" * 5000 + b"}").param == "max_tokens"
    assert refused(CHAT, b'{"model":"m","messages":[],"max_tokens":1e999}').param == "max_tokens"


def test_a_model_name_has_a_bound():
    assert refused(CHAT, chat(model="x" * 1025)).param == "model"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"model": "m", "messages": [}', "(byte 28)"),
        (b'{"model": "m"', "(byte 13)"),
        (b'{"a":NaN}', "(byte 5)"),
        (b'{"a":-Infinity}', "(byte 6)"),
        (b'{"a":1,}', "(byte 7)"),
        (b'{"a":"x\ny"}', "(byte 7)"),
        (b'{"a":1} x', "(byte 9)"),
        (b'{"a":"\\\\ud800 \\ud83d\\ude00 \\ud83d"}', "half of a surrogate pair (byte 27)"),
        (b'{"model":1,"a":tru}', "(byte 16)"),
    ],
)
def test_malformed_json_says_where(body: bytes, where: str):
    error = refused(CHAT, body)
    assert where in error.message
    assert "not valid JSON" in error.message
    assert error.param is None


def test_an_escaped_backslash_before_u_is_no_escape():
    assert inspect_json(CHAT, b'{"model":"m","messages":["\\\\ud83d"]}').model == "m"


@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_an_empty_body(body: bytes):
    assert "empty" in refused(CHAT, body).message


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"3", b"null", b"true"])
def test_not_an_object(body: bytes):
    assert "must be a JSON object" in refused(CHAT, body).message


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf"])
def test_bytes_that_are_no_utf8_anywhere(bad: bytes):
    assert "UTF-8 (byte 28)" in refused(CHAT, b'{"model":"m","messages":[],"' + bad + b'":1}').message
    assert "UTF-8 (byte 28)" in refused(CHAT, b'{"model":"m","messages":[["' + b"a" + bad + b'"]]}').message


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [10_000, 1_000_000])
def test_deep_nesting_is_refused_and_costs_nothing(opening: bytes, depth: int):
    closing = b"]" if opening == b"[" else b"}"
    body = b'{"model":"m","messages":[],"deep":' + opening * depth + b"1" + closing * depth + b"}"
    assert "deeply" in refused(CHAT, body).message
    for change in (lambda: with_model(body, "x"), lambda: with_stream_usage(body)):
        with pytest.raises(InvalidRequest):
            change()


def test_it_is_quick():
    body = chat(messages=[{"role": "user", "content": "word " * 20_000}])
    mine = min(timeit.repeat(lambda: inspect_json(CHAT, body), number=20, repeat=5))
    plain = min(timeit.repeat(lambda: json.loads(body), number=20, repeat=5))
    assert mine < 5 * plain  # the bound only catches a blunder
