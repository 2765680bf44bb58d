import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.captures import FOLDER

from lexora_contract.operations import OPERATIONS
from lexora_router.errors import InvalidRequest
from lexora_router.payload.rewrite import with_cache_salt, with_model, with_stream_usage

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


SALTED = [
    b"{}",
    b" { } ",
    b'{"a":1}',
    b'\n{ "a" : [1, {"cache_salt": 2}] }',
    b'{"cache_salt":"theirs","a":1}',
    b'{"a":"cache_salt"}',
    b'{"cach\\u0065_salt":"theirs"}',
    b'{"cache_salt":1,"a":{},"cache\\u005Fsalt":"theirs"}',
    b'{"a":"\\u0041"}',
    b'{"Cache_Salt":"theirs","CACHE_SALT":1}',
    b'{"\\u0063\\u0061che_salt":"theirs","cache_salt":"theirs","nvext":{"cache_salt":"theirs"}}',
]


@pytest.mark.parametrize("body", SALTED)
def test_a_body_has_one_cache_salt_which_is_ours(body: bytes):
    large = body.rstrip()[:-1].rstrip()
    large += (b"" if large.endswith(b"{") else b",") + b'"pad":"%b"}' % (b"x" * 20_000)
    for sent in (body, large):
        check_salted(sent)


def check_salted(body: bytes) -> None:
    pairs: list[Any] = []
    json.loads(with_cache_salt(body, "ours"), object_pairs_hook=lambda found: pairs.append(found) or dict(found))
    outermost = pairs[-1]
    assert [value for name, value in outermost if name == "cache_salt"] == ["ours"]
    rest = {name: value for name, value in json.loads(body).items() if name != "cache_salt"}
    assert {name: value for name, value in outermost if name != "cache_salt"} == rest


def test_a_real_engine_reads_it_under_this_name_only_and_where_it_is_set():
    fields: dict[str, list[str]] = json.loads((FOLDER / "vllm" / "openapi_fields.json").read_text())
    salted = {path for path, names in fields.items() if "cache_salt" in names}
    assert {name for names in fields.values() for name in names if "salt" in name.casefold()} == {"cache_salt"}
    assert {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"} <= salted
    assert {path for path in salted if path in OPERATIONS and not OPERATIONS[path].queued} == set()


def test_a_body_without_a_salt_is_not_read_for_it():
    body = b'{"model":"m", "n":9007199254740993,"text":"\\u65e5"  }'
    assert with_cache_salt(body, "s") == b'{"cache_salt":"s",' + body[1:]
