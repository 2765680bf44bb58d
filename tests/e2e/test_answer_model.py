"""The model that an answer names: as it was asked, or as the engine says; every other byte is the engine's."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from lexora.v1 import call_pb2, chat_pb2, completion_pb2, embed_pb2, raw_pb2, router_pb2, router_pb2_grpc
from tests.support import wire
from tests.support.engine import ScriptedEngine
from tests.support.raw_server import chunk, reply, stream, stream_head
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
    aliases = {"alias": "m", "other": "plain"}
    made["routing"] |= {"aliases": aliases, "default_model_for_unknown_task": "m"} | routing
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


@pytest.mark.parametrize("setting", ["asked", "served"])
def test_so_do_answers_over_grpc(engine: ScriptedEngine, gateway: Gateway, tmp_path: Path, setting: str) -> None:
    if setting == "asked":
        assert over_grpc(gateway, engine) == {form: {"alias"} for form in GRPC_FORMS}
        return
    with Gateway(config(engine, answer_model=setting), tmp_path) as served:
        assert over_grpc(served, engine) == {form: {"engine-m"} for form in GRPC_FORMS}


GRPC_FORMS = ("chat", "completion", "raw", "embed", "chat stream", "completion stream", "raw stream")


def over_grpc(gateway: Gateway, engine: ScriptedEngine) -> dict[str, set[str]]:
    """The models that the answers name, by the form of the call."""
    path = "/v1/chat/completions"
    asked, answer, events = DIALECTS[path]
    told: dict[str, set[str]] = {}
    chat = chat_pb2.ChatRequest(model="alias", messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, text="Hi")])
    completion = completion_pb2.CompletionRequest(model="alias", text="Hi")
    body = b'{"model":"alias",%b' % asked
    with grpc.insecure_channel(gateway.grpc) as channel:
        router = router_pb2_grpc.RouterServiceStub(channel)
        engine.answer = reply(named(answer, b"engine-m"))
        told["chat"] = {router.Generate(router_pb2.GenerateRequest(call=call_pb2.Call(chat=chat)), timeout=10).chat.model}
        relayed = raw_pb2.RawCall(path=path, body=body + b"}")
        whole = router.Generate(router_pb2.GenerateRequest(call=call_pb2.Call(raw=relayed)), timeout=10)
        told["raw"] = {model for model in ("alias", "engine-m") if whole.raw.body == named(answer, model.encode())}
        assert whole.receipt.model == "engine-m"
        engine.answer = reply(b'{"model":"engine-m","choices":[{"text":"x"}]}')
        told["completion"] = {
            router.Generate(router_pb2.GenerateRequest(call=call_pb2.Call(completion=completion)), timeout=10).completion.model
        }
        engine.answer = reply(b'{"model":"engine-m","data":[{"index":0,"embedding":[0.5]}]}')
        told["embed"] = {router.Embed(embed_pb2.EmbedRequest(model="alias", texts={"values": ["x"]}), timeout=10).model}

        engine.answer = stream(*(named(event, b"engine-m") for event in events))
        chunks = list(router.Stream(router_pb2.StreamRequest(call=call_pb2.Call(chat=chat)), timeout=10))
        told["chat stream"] = {chunk.delta.chat.model for chunk in chunks if chunk.HasField("delta")}
        relayed = raw_pb2.RawCall(path=path, body=body + b',"stream":true}')
        frames = b"".join(
            chunk.delta.frames for chunk in router.Stream(router_pb2.StreamRequest(call=call_pb2.Call(raw=relayed)), timeout=10)
        )
        told["raw stream"] = {model for model in ("alias", "engine-m") if frames == named(b"".join(events), model.encode())}
        engine.answer = stream(b'data: {"model":"engine-m","choices":[{"text":"x","finish_reason":"stop"}]}\n\n', events[-1])
        chunks = list(router.Stream(router_pb2.StreamRequest(call=call_pb2.Call(completion=completion)), timeout=10))
        told["completion stream"] = {chunk.delta.completion.model for chunk in chunks if chunk.HasField("delta")}
    return told


def test_a_compressed_stream_is_named_and_a_transcript_is_not(gateway: Gateway, engine: ScriptedEngine) -> None:
    asked, _, events = DIALECTS["/v1/chat/completions"]
    sent = named(b"".join(events), b"engine-m")
    engine.answer = stream(gzip.compress(sent), headers="content-encoding: gzip\r\n")
    answer = wire.post(gateway.http, "/v1/chat/completions", b'{"model":"m","stream":true,%b}' % asked)
    assert answer.body == named(b"".join(events), b"m")
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n'
    said = b'He said: {"model":"engine-m"}'
    engine.answer = reply(said, content_type="text/plain")
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert wire.post(gateway.http, "/v1/audio/transcriptions", form, headers).body == said
    assert b"\r\n\r\nengine-m\r\n" in engine.last.body


def test_a_call_that_names_no_model_asks_for_the_default_one(gateway: Gateway, engine: ScriptedEngine) -> None:
    engine.answer = reply(b'{"id":"score-1","model":"engine-m","results":[]}')
    answer = wire.post(gateway.http, "/v1/rerank", b'{"query":"q","documents":["d"]}')
    assert answer.body == b'{"id":"score-1","model":"m","results":[]}'


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
