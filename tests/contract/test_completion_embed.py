"""The typed forms of a completion and of embeddings."""

import base64
import json
import struct
from typing import Any

import pytest

from lexora.v1 import completion_pb2, embed_pb2, router_pb2, tokens_pb2
from tests.contract.messages import COUNTED, OPTIONS, USAGE, encoded, receipt, unary
from tests.support.links import Link
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import reply

LOGPROBS = {"tokens": ["lo"], "token_logprobs": [-0.5], "top_logprobs": [{"lo": -0.5}], "text_offset": [0]}


def completed() -> bytes:
    choice = {"index": 0, "text": "lo", "finish_reason": "length", "logprobs": LOGPROBS}
    return encoded({"id": "c1", "created": 1, "model": "m", "choices": [choice], "usage": USAGE})


@pytest.mark.parametrize(
    ("prompt", "sent"), [({"text": "Hel"}, "Hel"), ({"token_ids": tokens_pb2.TokenIds(ids=[1, 2, 3])}, [1, 2, 3])]
)
async def test_a_completion(link: Link, engine: LoopEngine, prompt: dict[str, Any], sent: object) -> None:
    engine.answer(reply(completed()))
    request = completion_pb2.CompletionRequest(
        model="m", echo=True, logprobs=1, suffix=".", extra_json='{"best_of":2}', **prompt
    )
    outcome = await link.generate(unary(completion=request))
    logprob = tokens_pb2.TokenLogprob(token="lo", logprob=-0.5, top=[tokens_pb2.TokenLogprob(token="lo", logprob=-0.5)])
    for found in (*outcome.only.completion.choices[0].logprobs, *outcome.only.completion.choices[0].logprobs[0].top):
        found.ClearField("bytes")
    assert outcome.only == router_pb2.GenerateResponse(
        receipt=receipt(engine.url, usage=COUNTED),
        completion=completion_pb2.CompletionResponse(
            id="c1",
            model="m",
            create_time={"seconds": 1},
            choices=[
                completion_pb2.CompletionChoice(
                    text="lo",
                    finish_reason=tokens_pb2.FINISH_REASON_LENGTH,
                    finish_reason_raw="length",
                    logprobs=[logprob],
                )
            ],
            usage=COUNTED,
        ),
    )
    assert engine.requests[0].target == "/v1/completions"
    body = json.loads(engine.requests[0].body)
    assert body == {"model": "m", "prompt": sent, "echo": True, "logprobs": 1, "suffix": ".", "best_of": 2}


def vectors(*found: Any) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in found]
    return encoded({"object": "list", "model": "vec", "data": data, "usage": {"prompt_tokens": 4, "total_tokens": 4}})


BASE64 = base64.b64encode(struct.pack("<2f", 0.5, -1.0)).decode()


@pytest.mark.parametrize("second", [[0.5, -1.0], BASE64])
@pytest.mark.parametrize(
    ("inputs", "sent"),
    [
        ({"texts": {"values": ["a", "b"]}}, ["a", "b"]),
        ({"token_ids": {"values": [tokens_pb2.TokenIds(ids=[1]), tokens_pb2.TokenIds(ids=[2, 3])]}}, [[1], [2, 3]]),
    ],
)
async def test_embeddings(link: Link, engine: LoopEngine, inputs: dict[str, Any], sent: object, second: object) -> None:
    engine.answer(reply(vectors((1, second), (0, [1.0, 0.25]))))
    outcome = await link.embed(embed_pb2.EmbedRequest(options=OPTIONS, model="vec", dimensions=2, **inputs))
    counted = tokens_pb2.Usage(input_tokens=4)
    assert outcome.only == embed_pb2.EmbedResponse(
        receipt=receipt(engine.url, model="vec", usage=counted),
        model="vec",
        embeddings=[
            embed_pb2.Embedding(index=0, values=[1.0, 0.25]),
            embed_pb2.Embedding(index=1, values=[0.5, -1.0]),
        ],
        usage=counted,
    )
    assert engine.requests[0].target == "/v1/embeddings"
    assert json.loads(engine.requests[0].body) == {"model": "vec", "input": sent, "dimensions": 2}
