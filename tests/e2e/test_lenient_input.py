"""Requests that mean the same in other letters are answered alike: what a call asks for is read by the parser of its body."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.engine import ScriptedEngine
from tests.support.raw_server import reply, stream
from tests.support.servers import Gateway, calm_config

CHAT = "/v1/chat/completions"
AUDIO = "/v1/audio/transcriptions"
EVENTS = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
WHOLE = b'{"object":"chat.completion","choices":[]}'
BOM = b"\xef\xbb\xbf"


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("m") as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: ScriptedEngine, folder: Path) -> Iterator[Gateway]:
    with Gateway(
        calm_config(main={"url": engine.url, "model_mapping": {"alias": "m"}, "stream_usage": False}), folder
    ) as process:
        yield process


def json_body(more: bytes) -> bytes:
    return b'{"model":"m","messages":[],' + more + b"}"


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"b") -> bytes:
    """Each part is its header lines and its value."""
    pieces = [b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, value) for head, value in parts]
    return b"".join(pieces) + b"--%b--\r\n" % boundary


PLAIN = form(
    (b'Content-Disposition: form-data; name="model"', b"m"),
    (b'Content-Disposition: form-data; name="stream"', b"true"),
    (b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav', b"RIFF"),
)
# As System.Net.Http.MultipartFormDataContent writes it.
DOTNET = form(
    (b"Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=model", b"m"),
    (b"Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=stream", b"true"),
    (b"Content-Disposition: form-data; name=file; filename=a.wav; filename*=utf-8''a.wav", b"RIFF"),
    boundary=b"6a4e1b6c-0f4e",
)
FORM = "multipart/form-data; boundary=b"
STREAMED = {
    "plain": (CHAT, "application/json", json_body(b'"stream":true')),
    "an escaped key": (CHAT, "application/json", json_body(rb'"str\u0065am":true')),
    "a key escaped whole": (CHAT, "application/json", json_body(rb'"\u0073\u0074\u0072\u0065\u0061\u006d":true')),
    "a text": (CHAT, "application/json", json_body(b'"stream":"True"')),
    "a number": (CHAT, "application/json", json_body(b'"stream":1')),
    "a plain form": (AUDIO, FORM, PLAIN),
    "a form's type in other letters": (AUDIO, "Multipart/Form-Data; Boundary=b", PLAIN),
    "a quoted boundary, names without quotes": (AUDIO, 'multipart/form-data; boundary="6a4e1b6c-0f4e"', DOTNET),
    "a disposition in other letters": (AUDIO, FORM, PLAIN.replace(b"form-data; name", b"Form-Data; Name")),
}


@pytest.mark.parametrize("case", STREAMED)
def test_a_call_streams_however_it_is_written(gateway: Gateway, engine: ScriptedEngine, case: str) -> None:
    path, content_type, body = STREAMED[case]
    engine.answer = stream(EVENTS)
    answer = wire.post(gateway.http, path, body, {"content-type": content_type})
    assert (answer.status, answer.body, answer.header("content-type")) == (200, EVENTS, "text/event-stream; charset=utf-8")
    assert (engine.last.body, engine.last.header("content-type")) == (body, content_type)


WHOLES = {
    "stream in a text": json_body(b'"user":"\\"stream\\": true"'),
    "stream as a value": json_body(b'"tools":["stream"]'),
    "no stream by a text": json_body(b'"stream":"false"'),
    "numbers as texts": json_body(b'"max_tokens":"16","n":"2","max_completion_tokens":16.0,"temperature":"0.5"'),
}


@pytest.mark.parametrize("case", WHOLES)
def test_what_only_looks_like_a_stream_is_answered_whole(gateway: Gateway, engine: ScriptedEngine, case: str) -> None:
    engine.answer = reply(WHOLE)
    answer = wire.post(gateway.http, CHAT, WHOLES[case])
    assert (answer.status, answer.body) == (200, WHOLE)
    assert engine.last.body == WHOLES[case]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/tokenize", "/v1/rerank"])
def test_where_nothing_streams_the_field_says_nothing(gateway: Gateway, engine: ScriptedEngine, path: str) -> None:
    engine.answer = reply(WHOLE)
    body = b'{"model":"m","input":"x","prompt":"x","stream":true}'
    assert wire.post(gateway.http, path, body).body == WHOLE
    assert engine.last.body == body


def test_a_form_in_other_letters_gets_the_engine_s_name_of_the_model(gateway: Gateway, engine: ScriptedEngine) -> None:
    engine.answer = reply(b'{"text":"hi"}')
    body = DOTNET.replace(b"\r\n\r\nm\r\n", b"\r\n\r\nalias\r\n").replace(b"\r\n\r\ntrue\r\n", b"\r\n\r\nfalse\r\n")
    answer = wire.post(gateway.http, AUDIO, body, {"content-type": 'Multipart/Form-Data; boundary="6a4e1b6c-0f4e"'})
    assert answer.status == 200
    assert engine.last.body == body.replace(b"alias", b"m")


@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
def test_a_byte_order_mark_is_taken_off(gateway: Gateway, engine: ScriptedEngine, path: str) -> None:
    engine.answer = reply(WHOLE)
    assert wire.post(gateway.http, path, BOM + json_body(b'"prompt":"x"')).status == 200
    assert engine.last.body == json_body(b'"prompt":"x"')


@pytest.mark.parametrize("path", ["/generate", "/chat"])
def test_the_short_forms_take_it_as_well(gateway: Gateway, engine: ScriptedEngine, path: str) -> None:
    engine.answer = reply(b'{"choices":[{"index":0,"text":"hi","message":{"role":"assistant","content":"hi"}}]}')
    assert wire.post(gateway.http, path, BOM + b'{"model":"m","prompt":"x"}').status == 200
