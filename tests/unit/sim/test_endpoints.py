from __future__ import annotations

import base64
import struct

import pytest

from lexora_sim import Simulator
from tests.unit.sim.helpers import HELLO, call, names, post


def vector(answer: object) -> list[float]:
    return answer["data"][0]["embedding"]  # type: ignore[index, no-any-return]  # JSON


async def test_embeddings(sim: Simulator) -> None:
    body = (await post(sim, "/v1/embeddings", {"model": "embed", "input": "hello world"})).json()
    assert list(body) == ["id", "object", "created", "model", "data", "usage"]
    assert list(body["data"][0]) == ["index", "object", "embedding"]
    assert body["id"].startswith("embd-")
    assert list(body["usage"])[:3] == ["prompt_tokens", "total_tokens", "completion_tokens"]
    assert len(vector(body)) == 64
    assert sum(value * value for value in vector(body)) == pytest.approx(1.0, abs=1e-5)


async def test_embedding_forms_agree(sim: Simulator) -> None:
    plain = (await post(sim, "/v1/embeddings", {"input": ["hello", "second"], "dimensions": 16})).json()
    packed = (await post(sim, "/v1/embeddings", {"input": "hello", "dimensions": 16, "encoding_format": "base64"})).json()
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert list(struct.unpack("<16f", raw)) == vector(plain)
    ids = (await post(sim, "/tokenize", {"model": "embed", "prompt": "hello"})).json()["tokens"]
    for given in (ids, [ids]):
        assert vector((await post(sim, "/v1/embeddings", {"input": given, "dimensions": 16})).json()) == vector(plain)
    assert plain["data"][1]["embedding"] != vector(plain)


async def test_embedding_errors(sim: Simulator) -> None:
    assert (await post(sim, "/v1/embeddings", {"model": "embed"})).json()["error"]["param"] == "body.input"
    long = await post(sim, "/v1/embeddings", {"input": "w" * 40_000})
    assert long.json()["error"]["param"] == "input_text"
    assert "40000 characters (more than 37888 characters" in long.json()["error"]["message"]
    assert (await post(sim, "/v1/embeddings", {"model": "tiny", "input": "x"})).status == 400
    assert (await post(sim, "/v1/embeddings", {"input": "x", "dimensions": 0})).status == 400


async def test_rerank_and_score(sim: Simulator) -> None:
    for path in ("/v1/rerank", "/rerank"):
        body = (await post(sim, path, {"model": "embed", "query": "a", "documents": ["b", "c", "d"]})).json()
        assert list(body) == ["id", "model", "usage", "results"]
        scores = [row["relevance_score"] for row in body["results"]]
        assert scores == sorted(scores, reverse=True)
        assert body["results"][0]["document"]["multi_modal"] is None
    for path in ("/v1/score", "/score"):
        pairs = (await post(sim, path, {"model": "embed", "text_1": "a", "text_2": ["b", "c"]})).json()
        assert [list(row) for row in pairs["data"]] == [["index", "object", "score"]] * 2
    best = {row["document"]["text"]: row["relevance_score"] for row in body["results"]}
    assert [row["score"] for row in pairs["data"]] == [best["b"], best["c"]]
    top = await post(sim, "/rerank", {"query": "a", "documents": ["b", "c"], "top_n": 1})
    assert len(top.json()["results"]) == 1


async def test_pooling_and_classify(sim: Simulator) -> None:
    assert len((await post(sim, "/pooling", {"input": "x"})).json()["data"][0]["data"]) == 64
    row = (await post(sim, "/classify", {"input": "x"})).json()["data"][0]
    assert list(row) == ["index", "label", "probs", "num_classes"]
    assert sum(row["probs"]) == pytest.approx(1.0)


async def test_tokenize_round_trip(sim: Simulator) -> None:
    body = (await post(sim, "/tokenize", {"prompt": "hello 世界 🚀"})).json()
    assert list(body) == ["count", "max_model_len", "tokens", "token_strs"]
    assert body["count"] == len(body["tokens"])
    assert (await post(sim, "/detokenize", {"tokens": body["tokens"]})).body == '{"prompt":"hello 世界 🚀"}'.encode()
    chat = (await post(sim, "/tokenize", HELLO)).json()
    usage = (await post(sim, "/v1/chat/completions", HELLO)).json()["usage"]
    assert chat["count"] == usage["prompt_tokens"]


async def test_models_health_version(sim: Simulator) -> None:
    body = (await call(sim, "GET", "/v1/models")).json()
    assert [model["id"] for model in body["data"]] == ["tiny", "embed"]
    first = body["data"][0]
    assert list(first) == names("id object created owned_by root parent max_model_len permission")
    assert first["max_model_len"] == 1024
    for path in ("/health", "/ping"):
        answer = await call(sim, "GET", path)
        assert (answer.status, answer.body) == (200, b"")
        assert "content-type" not in answer.headers
    assert (await call(sim, "GET", "/version")).json() == {"version": "0.32.0"}
    assert (await call(sim, "GET", "/metrics")).headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"


async def test_responses(sim: Simulator) -> None:
    request = {"model": "tiny", "input": "hello", "max_output_tokens": 8}
    body = (await post(sim, "/v1/responses", request)).json()
    assert list(body)[:4] == ["id", "created_at", "incomplete_details", "instructions"]
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    item = body["output"][0]
    assert list(item) == ["id", "content", "role", "status", "type", "phase"]
    streamed = await post(sim, "/v1/responses", {**request, "stream": True})
    events = streamed.events()
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == item["content"][0]["text"]
    deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert deltas == item["content"][0]["text"]
    assert streamed.chunks[0].startswith(b"event: response.created\ndata: {")


async def test_responses_tool_call(sim: Simulator) -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}
    body = (await post(sim, "/v1/responses", {"input": "hello", "tools": [tool]})).json()
    assert (body["output"][0]["type"], body["output"][0]["name"]) == ("function_call", "f")


async def test_messages(sim: Simulator) -> None:
    request = {**HELLO, "max_tokens": 8}
    body = (await post(sim, "/v1/messages", request)).json()
    assert list(body) == ["id", "type", "role", "content", "model", "stop_reason", "usage"]
    assert body["stop_reason"] == "max_tokens"
    streamed = await post(sim, "/v1/messages", {**request, "stream": True})
    kinds = [event["type"] for event in streamed.events()]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    text = "".join(e["delta"]["text"] for e in streamed.events() if e["type"] == "content_block_delta")
    assert text == body["content"][0]["text"]
    assert (await post(sim, "/v1/messages", HELLO)).json()["error"]["param"] == "body.max_tokens"


async def test_messages_tool_use(sim: Simulator) -> None:
    tool = {"name": "f", "input_schema": {"type": "object", "properties": {"x": {"type": "integer"}}}}
    body = (await post(sim, "/v1/messages", {**HELLO, "max_tokens": 64, "tools": [tool]})).json()
    assert body["stop_reason"] == "tool_use"
    assert isinstance(body["content"][0]["input"]["x"], int)


def form(**fields: str) -> tuple[bytes, str]:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    sound = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    body = "".join(parts).encode() + sound.encode() + bytes(range(256)) * 20 + b"\r\n--b--\r\n"
    return body, "multipart/form-data; boundary=b"


async def test_audio(sim: Simulator) -> None:
    body, kind = form(model="tiny")
    first = (await post(sim, "/v1/audio/transcriptions", body, **{"content-type": kind})).json()
    assert first["text"]
    assert first == (await post(sim, "/v1/audio/transcriptions", body, **{"content-type": kind})).json()
    assert first != (await post(sim, "/v1/audio/translations", body, **{"content-type": kind})).json()
    body, kind = form(model="tiny", response_format="text")
    plain = await post(sim, "/v1/audio/transcriptions", body, **{"content-type": kind})
    assert plain.body.decode() == first["text"]
    body, kind = form(model="nope")
    assert (await post(sim, "/v1/audio/transcriptions", body, **{"content-type": kind})).status == 404
    assert (await post(sim, "/v1/audio/transcriptions", {"model": "tiny"})).status == 400
