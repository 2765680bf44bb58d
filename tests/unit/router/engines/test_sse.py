import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_contract.answer import Usage
from lexora_contract.operations import Dialect, operation_of
from lexora_router.engines.sse import Inspector
from lexora_router.errors import UpstreamBroken, UpstreamFailure, UpstreamInvalid, UpstreamRefused

DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}\n\n'


def content(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]}, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def crlf(event: bytes) -> bytes:
    return event.replace(b"\n", b"\r\n")


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream cut at each offset (taken modulo its length)."""
    offsets = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(offsets)]


def run(*reads: bytes, dialect: Dialect = Dialect.OPENAI, hide: bool = True) -> tuple[bytes, Inspector]:
    """What the client gets of these reads, up to a failure, as the relay does it."""
    inspector, out = Inspector(dialect, hide_usage=hide), b""
    for read in reads:
        out += inspector.feed(read)
        if inspector.failure is not None:
            break
    return out, inspector


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["[DONE]", '"usage"', '"error"', "data: x\n\n", "日本語🎉"]
)
EVENTS = st.one_of(
    st.builds(content, TEXTS, st.sampled_from([None, "stop", "length"])),
    st.sampled_from([b": ping\n\n", b":\n\n", b"event: note\nid: 7\ndata: {}\n\n", b"data:\ndata: 1\n\n", b"retry: 10\n\n"]),
)
STREAMS = st.lists(EVENTS, max_size=8).map(lambda events: [*events, USAGE, DONE])


@given(STREAMS, st.booleans(), st.lists(st.integers(0, 4000), max_size=30))
def test_any_cut_of_a_stream_gives_the_stream_without_the_hidden_usage(
    events: list[bytes], wide: bool, cuts: list[int]
) -> None:
    events = [crlf(event) for event in events] if wide else events
    out, inspector = run(*pieces(b"".join(events), cuts))
    assert out == b"".join(event for event in events if b'"choices":[],"usage"' not in event)
    assert inspector.usage == Usage(5, 7)
    inspector.end()


@given(STREAMS, st.booleans())
def test_single_bytes_give_the_same(events: list[bytes], wide: bool) -> None:
    stream = b"".join(crlf(event) for event in events) if wide else b"".join(events)
    out, inspector = run(*(bytes([byte]) for byte in stream), hide=False)
    assert out == stream
    inspector.end()


@pytest.mark.parametrize("dialect", Dialect)
@given(events=st.lists(EVENTS, max_size=8), cuts=st.lists(st.integers(0, 4000), max_size=30))
def test_in_every_dialect_what_is_no_usage_passes(dialect: Dialect, events: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(events)
    out, inspector = run(*pieces(stream, cuts), dialect=dialect)
    assert stream.startswith(out)
    assert stream[len(out) :].strip(b"\n") == b""
    assert inspector.failure is None


def test_a_long_event_within_the_bound_comes_out_whole() -> None:
    event = content("é" * 100_000)
    assert run(event[:50_001], event[50_001:])[0] == event


# -- usage


def test_usage_is_shown_to_those_who_asked() -> None:
    out, inspector = run(USAGE, DONE, hide=False)
    assert out == USAGE + DONE
    assert inspector.usage == Usage(5, 7)


def test_usage_in_an_event_with_choices_is_never_hidden() -> None:
    """llama.cpp's server puts finish and usage into one event."""
    event = b'data: {"choices":[{"finish_reason":"stop","delta":{}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
    out, inspector = run(event, DONE)
    assert out == event + DONE
    assert inspector.usage == Usage(1, 2)


def test_only_the_usage_event_of_a_read_is_hidden() -> None:
    out, _ = run(content("a") + USAGE + DONE)
    assert out == content("a") + DONE


def test_hidden_usage_beside_a_name_that_is_no_text_is_hidden_as_a_whole() -> None:
    """Names that nothing asks for are not read as UTF-8 before: it would end the call as a bug of the router."""
    inspector = Inspector(Dialect.OPENAI, hide_usage=True)
    event = b'data: {"choices":[],"\x80timings":{},"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
    assert inspector.feed(event) == b""
    assert (inspector.usage, inspector.failure) == (Usage(1, 2), None)


def test_null_usage_is_none() -> None:
    event = b'data: {"choices":[],"usage":null}\n\n'
    out, inspector = run(event)
    assert (out, inspector.usage) == (event, None)


def test_usage_of_the_responses_api() -> None:
    events = [
        b'event: response.created\ndata: {"type":"response.created","response":{"usage":null,"error":null}}\n\n',
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"[DONE]"}\n\n',
        b"event: response.completed\n"
        b'data: {"type":"response.completed","response":{"error":null,"usage":{"input_tokens":3,"output_tokens":4,'
        b'"input_tokens_details":{"cached_tokens":2},"output_tokens_details":{"reasoning_tokens":1}}}}\n\n',
    ]
    out, inspector = run(*events, dialect=Dialect.RESPONSES)
    assert out == b"".join(events)
    assert inspector.usage == Usage(3, 4, 2, 1)
    inspector.end()


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete", "response.failed", "response.cancelled"])
def test_each_end_of_the_responses_api(kind: str) -> None:
    _, inspector = run(f'data: {{"type":"{kind}","response":{{}}}}\n\n'.encode(), dialect=Dialect.RESPONSES)
    inspector.end()


def test_usage_of_the_messages_api_is_gathered_from_start_and_end() -> None:
    events = [
        b"event: message_start\n"
        b'data: {"type":"message_start","message":{"id":"x","usage":{"input_tokens":16,"output_tokens":0}}}\n\n',
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"\xef\xbf\xbd"}}\n\n',
        b"event: message_delta\n"
        b'data: {"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":4}}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ]
    out, inspector = run(*events, dialect=Dialect.ANTHROPIC)
    assert out == b"".join(events)
    assert inspector.usage == Usage(16, 4)
    inspector.end()


@pytest.mark.parametrize("message", [b'"text"', b"[1]", b'{"usage":[1]}', b"null"])
def test_a_message_of_another_shape_is_not_ours_to_judge(message: bytes) -> None:
    event = b'data: {"type":"message_start","message":' + message + b',"usage":{"input_tokens":3}}\n\n'
    out, inspector = run(event, dialect=Dialect.ANTHROPIC)
    assert out == event
    assert inspector.usage == Usage(3)


@pytest.mark.parametrize("payload", [b'[1,"usage"]', b'"usage"', b'{"usage":"many"}', b'{"choices":7,"usage":null}'])
def test_an_event_of_another_shape_passes(payload: bytes) -> None:
    event = b"data: " + payload + b"\n\n"
    out, inspector = run(event)
    assert (out, inspector.failure) == (event, None)


# -- failures


def failure(*reads: bytes, dialect: Dialect = Dialect.OPENAI) -> tuple[bytes, UpstreamFailure]:
    out, inspector = run(*reads, dialect=dialect)
    assert inspector.failure is not None
    with pytest.raises(type(inspector.failure)) as raised:
        inspector.end()
    assert raised.value is inspector.failure
    return out, inspector.failure


WORKER_KILLED = (
    b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", '
    b'"type": "InternalServerError", "param": null, "code": 500}}\n\n'
)


@pytest.mark.parametrize("dialect", Dialect)
def test_an_error_event_followed_by_done_is_a_failure(dialect: Dialect) -> None:
    out, error = failure(content("a") + WORKER_KILLED + DONE, dialect=dialect)
    assert out == content("a")
    assert isinstance(error, UpstreamRefused)
    assert (error.http_status, error.body) == (500, WORKER_KILLED[6:-2])


@pytest.mark.parametrize("spaced", [False, True])
def test_an_abort_is_a_failure(spaced: bool) -> None:
    event = content("a", "abort")
    out, error = failure(content("x"), event.replace(b":", b": ") if spaced else event, DONE)
    assert out == content("x")
    assert isinstance(error, UpstreamBroken)


@pytest.mark.parametrize("code", [400, 404, 429, 499, 500, 503, 529, 599])
def test_an_error_event_with_a_status_is_the_engine_s_refusal(code: int) -> None:
    payload = json.dumps({"error": {"message": "no", "code": code}}).encode()
    out, error = failure(b"data: " + payload + b"\n\n" + DONE)
    assert out == b""
    assert isinstance(error, UpstreamRefused)
    assert (error.http_status, error.content_type, error.body) == (code, "application/json", payload)


@pytest.mark.parametrize(
    "error",
    [
        b'"out of memory"',
        b"[1]",
        b'{"message":"x","code":"sad"}',
        b'{"code":200}',
        b'{"code":true,"type":7}',
        b'{"code":404.5}',
        b'{"message":"\xff"}',
        b"true",
        b"{}",
    ],
)
def test_an_error_of_any_shape_is_a_failure(error: bytes) -> None:
    payload = b'{"error":' + error + b"}"
    _, found = failure(b"data: " + payload + b"\n\n")
    assert isinstance(found, UpstreamBroken)
    assert found.event == payload


def test_a_null_error_is_none() -> None:
    event = b'data: {"error":null,"choices":[]}\n\n'
    out, inspector = run(event)
    assert (out, inspector.failure) == (event, None)


@pytest.mark.parametrize(
    "payload", [b'{"usage":', b'usage: "usage"', b'{"type":"\xff","usage":null}', b'{"choices":[{"finish_reason":"\xff"}]}']
)
def test_an_event_that_is_no_json_is_a_failure(payload: bytes) -> None:
    out, error = failure(content("a") + b"data: " + payload + b"\n\n")
    assert out == content("a")
    assert isinstance(error, UpstreamInvalid)


def test_nesting_without_end_is_a_failure() -> None:
    out, error = failure(content("a") + b'data: {"usage":null,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n")
    assert out == content("a")
    assert isinstance(error, UpstreamInvalid)


@pytest.mark.parametrize("dialect", [Dialect.OPENAI, Dialect.RESPONSES, Dialect.ANTHROPIC])
def test_an_end_that_was_not_announced_is_a_failure(dialect: Dialect) -> None:
    _, inspector = run(content("a"), content("b", "stop"), dialect=dialect)
    with pytest.raises(UpstreamBroken, match="ended the stream in mid-answer"):
        inspector.end()


def test_other_dialects_end_as_they_like() -> None:
    _, inspector = run(content("a"), dialect=Dialect.OTHER)
    inspector.end()


@pytest.mark.parametrize("dialect", Dialect)
def test_half_an_event_at_the_end_is_a_failure(dialect: Dialect) -> None:
    out, inspector = run(content("a"), b'data: {"choi', dialect=dialect)
    assert out == content("a")
    assert inspector.finish() == b""
    with pytest.raises(UpstreamBroken):
        inspector.end()


# -- content that looks like something else


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(
    "text",
    [
        "[DONE]",
        "data: [DONE]\n\n",
        '{"usage":{"prompt_tokens":1}}',
        '"error"',
        '{"error":{"code":404}}',
        '"finish_reason":"abort"',
        "message_stop",
    ],
)
def test_words_inside_content_mean_nothing(dialect: Dialect, text: str) -> None:
    event = content(text)
    out, inspector = run(event, dialect=dialect)
    assert out == event
    assert (inspector.usage, inspector.done, inspector.failure) == (None, False, None)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", Dialect.OPENAI),
        ("/v1/completions", Dialect.OPENAI),
        ("/v1/responses", Dialect.RESPONSES),
        ("/v1/messages", Dialect.ANTHROPIC),
        ("/v1/audio/transcriptions", Dialect.OTHER),
        ("/pooling", Dialect.OTHER),
    ],
)
def test_the_path_tells_the_dialect(path: str, dialect: Dialect) -> None:
    assert operation_of(path).dialect is dialect
