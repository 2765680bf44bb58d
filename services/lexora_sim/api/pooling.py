"""Pooling models: embeddings, rerank, score, classify, pooling."""

from __future__ import annotations

import base64
import struct
import time
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from zlib import crc32

from lexora_sim.api.completions import read_prompts
from lexora_sim.api.deferred import after_prefill, json_body
from lexora_sim.api.errors import bad_request
from lexora_sim.api.fields import Fields, check_messages, read_fields
from lexora_sim.api.generation import new_hex
from lexora_sim.api.sampling import check_length, check_priority
from lexora_sim.text.language import mix
from lexora_sim.text.likeness import vector
from lexora_sim.text.template import chat_ids
from lexora_sim.text.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from lexora_sim.api.app import App
    from lexora_sim.api.exchange import Exchange

_LABELS = ("LABEL_0", "LABEL_1")


def serve_embeddings(app: App, exchange: Exchange) -> None:
    """POST /v1/embeddings: float or base64, one or many inputs, `dimensions`."""
    fields, model, prompts = _read(app, exchange)
    encoding = fields.string("encoding_format") or "float"
    size = fields.integer("dimensions", app.settings.embedding_dimensions) or 0
    fields.check()
    if encoding not in ("float", "base64"):
        raise bad_request("encoding_format must be 'float' or 'base64'.", "encoding_format", encoding)
    if not 1 <= size <= app.settings.max_embedding_dimensions:
        raise bad_request(f"dimensions must be between 1 and {app.settings.max_embedding_dimensions}.", "dimensions")

    def one(prompt: list[int]) -> Any:
        vector = embedding(prompt, size)
        return base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if encoding == "base64" else vector

    _answer_list(app, exchange, model, prompts, prefix="embd", one=lambda prompt: ("embedding", {"embedding": one(prompt)}))


def serve_cohere_embed(app: App, exchange: Exchange) -> None:
    """POST /v2/embed: Cohere's request and answer, as floats."""
    fields = read_fields(exchange.request)
    texts = fields.items("texts", required=True) or []
    fields.check()
    model = _accept(app, exchange, fields)
    prompts = read_prompts(texts, app.settings)
    size = app.settings.embedding_dimensions

    def answer() -> tuple[bytes, str]:
        meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": sum(map(len, prompts))}}
        vectors = [embedding(prompt, size) for prompt in prompts]
        identity = app.answer_id(exchange, "embd")
        return json_body({"id": identity, "embeddings": {"float": vectors}, "texts": texts, "meta": meta})

    after_prefill(app, exchange, model, prompts, answer)


def serve_pooling(app: App, exchange: Exchange) -> None:
    """POST /pooling: the raw vector of each input."""
    _, model, prompts = _read(app, exchange)
    size = app.settings.embedding_dimensions
    _answer_list(
        app, exchange, model, prompts, prefix="pool", one=lambda prompt: ("pooling", {"data": embedding(prompt, size)})
    )


def serve_classify(app: App, exchange: Exchange) -> None:
    """POST /classify: a label and its probabilities for each input."""
    _, model, prompts = _read(app, exchange)

    def one(prompt: list[int]) -> tuple[None, dict[str, Any]]:
        first = _unit(prompt, 1)
        best = _LABELS[first < 0.5]
        return None, {"label": best, "probs": [first, 1 - first], "num_classes": 2}

    _answer_list(app, exchange, model, prompts, prefix="classify", one=one)


def serve_score(app: App, exchange: Exchange) -> None:
    """POST /score and /v1/score: how well each text_2 fits text_1."""
    fields = read_fields(exchange.request)
    left, right = _either(fields, "text_1", "queries"), _either(fields, "text_2", "documents")
    fields.check()
    model = _accept(app, exchange, fields)
    firsts, seconds = read_prompts(left, app.settings), read_prompts(right, app.settings)
    if len(firsts) not in (1, len(seconds)):
        raise bad_request("Input lengths must be either 1:1, 1:N or N:N")
    pairs = [[*firsts[index % len(firsts)], *second] for index, second in enumerate(seconds)]
    _answer_list(app, exchange, model, pairs, prefix="score", one=lambda pair: ("score", {"score": _unit(pair, 2)}))


def serve_rerank(app: App, exchange: Exchange) -> None:
    """POST /rerank and /v1/rerank: documents by relevance, the best first."""
    fields = read_fields(exchange.request)
    query = fields.string("query")
    if query is None:
        fields.missing("query")
    documents = fields.items("documents", required=True) or []
    top = fields.integer("top_n", 0) or len(documents)
    fields.check()
    model = _accept(app, exchange, fields)
    if not documents:
        raise bad_request("At least one document must be provided.", "documents")
    texts = [document if isinstance(document, str) else str(document) for document in documents]
    start = VOCABULARY.encode(query or "")
    pairs = [start + VOCABULARY.encode(text) for text in texts]
    for pair in pairs:
        check_length(len(pair), app.settings)

    def answer() -> tuple[bytes, str]:
        rows = [
            {"index": index, "document": {"text": text, "multi_modal": None}, "relevance_score": _unit(pair, 2)}
            for index, (text, pair) in enumerate(zip(texts, pairs, strict=True))
        ]
        rows.sort(key=lambda row: -float(str(row["relevance_score"])))
        count = sum(map(len, pairs))
        usage = {"prompt_tokens": count, "total_tokens": count}
        identity = app.answer_id(exchange, "score")
        return json_body({"id": identity, "model": model, "usage": usage, "results": rows[:top]})

    after_prefill(app, exchange, model, pairs, answer)


def embedding(prompt: list[int], size: int) -> list[float]:
    """Return a vector of length one; texts that share pieces of words are near each other."""
    found = vector(VOCABULARY.decode(prompt), size)
    packed: tuple[float, ...] = struct.unpack(f"<{size}f", struct.pack(f"<{size}f", *found))
    return list(packed)


def _read(app: App, exchange: Exchange) -> tuple[Fields, str, list[list[int]]]:
    fields = read_fields(exchange.request)
    messages = fields.items("messages")
    given = fields.body.get("input")
    if given is None and messages is None:
        fields.missing("input")
    fields.check()
    model = _accept(app, exchange, fields)
    if given is None and messages:
        check_messages(messages)
        prompts = [chat_ids(messages)]
    else:
        prompts = read_prompts(given, app.settings)
    for prompt in prompts:
        check_length(len(prompt), app.settings)
    return fields, model, prompts


def _accept(app: App, exchange: Exchange, fields: Fields) -> str:
    priority = fields.integer("priority", 0) or 0
    fields.check()
    model = app.model_of(fields, pooling=True)
    check_priority(priority, app.settings)
    app.accept(exchange, fields, model, priority)
    return model


def _either(fields: Fields, name: str, other: str) -> Any:
    value = fields.body.get(name, fields.body.get(other))
    if value is None:
        fields.missing(name)
    return value


def _answer_list(
    app: App,
    exchange: Exchange,
    model: str,
    prompts: list[list[int]],
    *,
    prefix: str,
    one: Callable[[list[int]], tuple[str | None, dict[str, Any]]],
) -> None:
    created = int(time.time())
    identity = app.answer_id(exchange, prefix) if exchange.request_id else f"{prefix}-{new_hex()}"

    def answer() -> tuple[bytes, str]:
        rows = []
        for index, prompt in enumerate(prompts):
            kind, more = one(prompt)
            rows.append({"index": index, **({"object": kind} if kind else {}), **more})
        count = sum(map(len, prompts))
        usage = {"prompt_tokens": count, "total_tokens": count, "completion_tokens": 0}
        usage_all: dict[str, Any] = {**usage, "prompt_tokens_details": None, "completion_tokens_details": None}
        head = {"id": identity, "object": "list", "created": created, "model": model}
        return json_body({**head, "data": rows, "usage": usage_all})

    after_prefill(app, exchange, model, prompts, answer)


def _unit(prompt: list[int], salt: int) -> float:
    value = mix(crc32(array("I", prompt).tobytes(), salt)) / 0x1_0000_0000
    packed: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return packed
