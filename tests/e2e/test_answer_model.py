"""The model that an answer names: as it was asked, or as the engine says; every other byte is the engine's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.engine import ScriptedEngine
from tests.support.raw_server import chunk, reply, stream_head
from tests.support.servers import Gateway, calm_config

TEXT = rb"it says \"model\":\"%b\" here" % b"engine-m"
# Path -> what is asked beside the model, the whole answer, and the events of a stream, with the model left open.
DIALECTS: dict[str, tuple[bytes, bytes, list[bytes]]] = {
    "/v1/chat/completions": (
        b'"messages":[]',
        b'{"id":"1","model": "%b","choices":[{"message":{"content":"' + TEXT + b'"}}],"n":9007199254740993}',
        [
            b'data: {"id":"1","model":"%b","choices":[{"delta":{"content":"' + TEXT + b'"}}]}\n\n',
            b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"id":"1","model":"%b"}\n\n',
            b"data: [DONE]\n\n",
        ],
    ),
    "/v1/responses": (
        b'"input":"x"',
        b'{"id":"resp_1","metadata":{"model":"engine-m"},"model":"%b","object":"response"}',
        [
            b'event: response.created\ndata: {"response":{"id":"resp_1","model":"%b"},"type":"response.created"}\n\n',
            b'event: response.output_text.delta\ndata: {"delta":"' + TEXT + b'","type":"response.output_text.delta"}\n\n',
            b'event: response.completed\ndata: {"response":{"model":"%b","status":"done"},"type":"response.completed"}\n\n',
        ],
    ),
    "/v1/messages": (
        b'"messages":[],"max_tokens":5',
        b'{"type":"message","model":"%b","content":[{"type":"text","text":"' + TEXT + b'"}]}',
        [
            b'event: message_start\ndata: {"type":"message_start","message":{"id":"1","model":"%b","content":[]}}\n\n',
            b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"' + TEXT + b'"}}\n\n',
            b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        ],
    ),
    "/v1/embeddings": (b'"input":"x"', b'{"object":"list","data":[],"model":"%b"}', []),
}


def named(text: bytes, model: bytes) -> bytes:
    return text.replace(b"%b", model)


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("m") as engine:
        yield engine


def config(engine: ScriptedEngine, **routing: str) -> dict[str, object]:
    main = {"url": engine.url, "models": ["m", "plain"], "model_mapping": {"m": "engine-m"}, "stream_usage": False}
    made = calm_config(main=main)
    made["routing"] |= {"aliases": {"alias": "m", "other": "plain"}} | routing
    return made


@pytest.fixture(scope="module")
def gateway(engine: ScriptedEngine, folder: Path) -> Iterator[Gateway]:
    with Gateway(config(engine), folder) as process:
        yield process


def whole(gateway: Gateway, engine: ScriptedEngine, path: str, model: bytes) -> bytes:
    asked, answer, _ = DIALECTS[path]
    engine.answer = reply(named(answer, b"engine-m"))
    return wire.post(gateway.http, path, b'{"model":"%b",%b}' % (model, asked)).body


@pytest.mark.parametrize("model", [b"m", b"alias"])
@pytest.mark.parametrize("path", DIALECTS)
def test_a_whole_answer_names_what_was_asked(gateway: Gateway, engine: ScriptedEngine, path: str, model: bytes) -> None:
    assert whole(gateway, engine, path, model) == named(DIALECTS[path][1], model)
    assert b'"engine-m"' in engine.last.body


@pytest.mark.parametrize("path", [path for path, dialect in DIALECTS.items() if dialect[2]])
def test_so_does_every_event_of_a_stream(gateway: Gateway, engine: ScriptedEngine, path: str) -> None:
    asked, _, events = DIALECTS[path]
    sent = [named(event, b"engine-m") for event in events]
    # Cut in the middle of the name, and in one piece.
    cut = sent[0].index(b"engine-m") + 3
    for pieces in ([sent[0][:cut], sent[0][cut:], *sent[1:]], [b"".join(sent)]):
        engine.answer = stream_head().removesuffix(b"\r\n\r\n") + b"\r\n\r\n" + b"".join(map(chunk, pieces)) + b"0\r\n\r\n"
        answer = wire.post(gateway.http, path, b'{"model":"alias","stream":true,%b}' % asked)
        assert answer.body == named(b"".join(events), b"alias")


def test_without_another_name_the_engine_s_word_stays(gateway: Gateway, engine: ScriptedEngine) -> None:
    assert whole(gateway, engine, "/v1/chat/completions", b"plain") == named(DIALECTS["/v1/chat/completions"][1], b"engine-m")
    assert whole(gateway, engine, "/v1/embeddings", b"other") == named(DIALECTS["/v1/embeddings"][1], b"other")


def test_an_engine_s_error_is_untouched(gateway: Gateway, engine: ScriptedEngine) -> None:
    body = b'{"error":{"message":"no"},"model":"engine-m"}'
    engine.answer = reply(body, status="422 Unprocessable Content")
    assert wire.post(gateway.http, "/v1/chat/completions", b'{"model":"m","messages":[]}').body == body


def test_served_leaves_the_engine_s_word(engine: ScriptedEngine, tmp_path: Path) -> None:
    with Gateway(config(engine, answer_model="served"), tmp_path) as gateway:
        for path, (_, answer, _) in DIALECTS.items():
            assert whole(gateway, engine, path, b"alias") == named(answer, b"engine-m")


def test_another_model_s_answer_says_so(engine: ScriptedEngine, tmp_path: Path) -> None:
    made = config(engine)
    made["routing"]["backends"] |= {  # type: ignore[index]
        "dead": {"url": "http://127.0.0.1:9", "models": ["big"], "fallback_backends": ["main"]},
    }
    made["routing"]["backends"]["main"]["fallback_models"] = {"big": "small"}  # type: ignore[index]
    with Gateway(made, tmp_path) as gateway:
        engine.answer = reply(b'{"model":"small","choices":[]}')
        answer = wire.post(gateway.http, "/v1/chat/completions", b'{"model":"big","messages":[]}')
    assert (answer.status, answer.body) == (200, b'{"model":"small","choices":[]}')
    assert answer.header("x-lexora-fallback")
