import json
import timeit
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.errors import InvalidRequest
from lexora_router.payload.inspect import (
    MAX_FORM_PARTS,
    inspect_json,
    inspect_multipart,
    with_model,
    with_model_multipart,
    with_stream_usage,
    without_bom,
)

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
    seconds = min(timeit.repeat(lambda: inspect_json(CHAT, body), number=20, repeat=5)) / 20
    assert seconds < 0.002  # about 40 us; the bound only catches a parser that builds everything


# --- what is changed

keys = st.text(max_size=8) | st.sampled_from(["model", "stream_options", "stream", "messages", "\u0000", '"', "\\", "é"])
numbers = st.integers() | st.integers(min_value=2**53, max_value=2**200) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
options = st.dictionaries(st.sampled_from(["include_usage", "continuous_usage_stats", "x", "y"]), st.booleans() | st.none())


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """Bytes of a JSON object: with or without spaces, escaped or not, as clients write it."""
    value = draw(st.dictionaries(keys.filter(lambda key: key != "stream_options"), values, max_size=6))
    if draw(st.booleans()):
        value["stream_options"] = draw(options | st.none())
        value = {key: value[key] for key in draw(st.permutations(list(value)))}
    indent = draw(st.sampled_from([None, 0, 2, "\t"]))
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=indent)
    return draw(st.sampled_from(["", " ", "\r\n\t "])).encode() + text.encode() + draw(st.sampled_from([b"", b"\n"]))


def exact(body: bytes) -> Any:
    """The value of a body, numbers as they are written."""
    return json.loads(body, parse_int=lambda text: f"int {text}", parse_float=lambda text: f"float {text}")


@given(objects(), st.text(min_size=1, max_size=20))
def test_with_model_changes_nothing_else(body: bytes, model: str):
    before, after = exact(body), exact(with_model(body, model))
    assert after["model"] == model
    assert list(after) == list(before | {"model": None})
    assert {**after, "model": 0} == {**before, "model": 0}


@given(objects())
def test_with_stream_usage_changes_nothing_else(body: bytes):
    before, after = exact(body), exact(with_stream_usage(body))
    asked = before.pop("stream_options", None) or {}
    expected = {key: value for key, value in asked.items() if key != "continuous_usage_stats"}
    if asked.get("include_usage") is True:
        expected = asked
    assert after.pop("stream_options") == expected | {"include_usage": True}
    assert after == before
    assert list(after) == list(before)


def test_with_model_keeps_bytes_of_values_and_adds_a_missing_model():
    body = b'{"seed": 9007199254740993, "x": [1.10, null ,{"model":"in"}], "model": "a", "e": 1E5}'
    assert with_model(body, "b") == b'{"seed":9007199254740993,"x":[1.10, null ,{"model":"in"}],"model":"b","e":1E5}'
    assert with_model(b"{}", "b") == b'{"model":"b"}'


def test_with_stream_usage_inserts_without_encoding_anew():
    body = b' { "a" : 1.10 }\n'
    assert with_stream_usage(body) == b' {"stream_options":{"include_usage":true}, "a" : 1.10 }\n'
    assert with_stream_usage(b"{ }") == b'{"stream_options":{"include_usage":true} }'


def test_with_stream_usage_leaves_a_client_that_asked_alone():
    body = b'{"stream_options": {"include_usage" : true , "continuous_usage_stats": true}}'
    assert with_stream_usage(body) is body


def test_with_stream_usage_drops_continuous_stats_that_nobody_would_see():
    body = b'{"stream_options":{"include_usage":false,"continuous_usage_stats":true,"x":1.0}}'
    assert with_stream_usage(body) == b'{"stream_options":{"include_usage":true,"x":1.0}}'


def test_changes_refuse_what_is_no_object():
    for body in (b"[]", b"{", b'{"\xff":1}'):
        with pytest.raises(InvalidRequest):
            with_model(body, "x")


# --- forms

TYPE = 'multipart/form-data; boundary="b0und"'
AUDIO = bytes(range(256)) * 50 + b'\r\n--b0un\r\nContent-Disposition: form-data; name="model"\r\n\r\nno\r\n'


def form(*parts: tuple[str, bytes]) -> bytes:
    head = b"--b0und\r\nContent-Disposition: form-data; "
    return b"".join(head + d.encode() + b"\r\n\r\n" + v + b"\r\n" for d, v in parts) + b"--b0und--\r\n"


FILE = ('name="file"; filename="a.wav"\r\nContent-Type: audio/wav', AUDIO)


def test_form_fields():
    fields = inspect_multipart(TYPE, form(FILE, ('name="model"', b"whisper"), ('name="stream"', b"True")))
    assert (fields.model, fields.stream) == ("whisper", True)
    fields = inspect_multipart(TYPE, form(('name="stream"', b"false"), FILE))
    assert (fields.model, fields.stream) == (None, False)
    assert fields.user is None
    assert inspect_multipart(TYPE, form(FILE, ('name="user"', b"anna"))).user == "anna"


def test_the_last_model_of_a_form_counts_and_a_file_is_no_field():
    body = form(('name="model"', b"a"), ('name="model"', b"b"), ('name="model"; filename="x"', b"c"))
    assert inspect_multipart(TYPE, body).model == "b"


def test_an_empty_model_of_a_form_is_none():
    assert inspect_multipart(TYPE, form(('name="model"', b""), FILE)).model is None


@pytest.mark.parametrize("old", [[b"tiny"], [b""], [b"a", b"long name"], []])
@pytest.mark.parametrize("file_first", [True, False])
def test_with_model_multipart_changes_nothing_else(old: list[bytes], file_first: bool):
    models = [('name="model"', value) for value in old]
    rest = [FILE, ('name="language"', b"ja")]
    body = form(*rest, *models) if file_first else form(*models, *rest)
    wanted = [('name="model"', "モデル".encode())] * len(old)
    if not old:
        expected = form(('name="model"', "モデル".encode()), *rest)
    else:
        expected = form(*rest, *wanted) if file_first else form(*wanted, *rest)
    changed = with_model_multipart(TYPE, body, "モデル")
    assert changed == expected
    assert inspect_multipart(TYPE, changed).model == "モデル"


@pytest.mark.parametrize(
    ("content_type", "body", "param"),
    [
        ("multipart/form-data", form(FILE), None),
        ("application/json", form(FILE), None),
        ("", form(FILE), None),
        ("multipart/form-data; boundary=" + "x" * 300, form(FILE), None),
        (TYPE, b"", None),
        (TYPE, b"{}", None),
        (TYPE, form(FILE)[:-8], None),
        (TYPE, form(('name="model"', b"\xff")), "model"),
        (TYPE, form(('name="model"', b"x" * 5000)), "model"),
        (TYPE, form(('name="model"', b"x" * 1025)), "model"),
        (TYPE, form(('name="stream"', b"maybe")), "stream"),
        (TYPE, form(('name="stream"', b"x" * 1000)), "stream"),
        (TYPE, form(*[('name="a"', b"1")] * (MAX_FORM_PARTS + 1)), None),
        (TYPE, form(('name="a"', b"\r\n--b0und_" * 3_000_000)), None),
        (TYPE, form(('name="' + "x" * 1024 + '"', b"1")), None),
        (TYPE, form(FILE)[:-4] + b" " * 30_000_000, None),
    ],
)
def test_bad_forms(content_type: str, body: bytes, param: str | None):
    with pytest.raises(InvalidRequest) as caught:
        inspect_multipart(content_type, body)
    assert caught.value.param == param


def test_malformed_forms_leave_no_log(caplog: pytest.LogCaptureFixture):
    with pytest.raises(InvalidRequest):
        inspect_multipart(TYPE, b"--b0und  nonsense")
    assert not caplog.records


def test_a_form_may_have_as_many_parts_as_allowed():
    body = form(*[('name="a"', b"1")] * (MAX_FORM_PARTS - 1), ('name="model"', b"m"))
    assert inspect_multipart(TYPE, body).model == "m"
