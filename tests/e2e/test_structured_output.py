"""Structured output, token ids and the prompt's log probabilities: typed gRPC, a real gateway, and the simulator as vLLM."""

import json
import re
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from lexora.client import Client, LexoraError
from lexora.v1.call_pb2 import Call
from lexora.v1.completion_pb2 import CompletionRequest
from lexora.v1.router_pb2 import GenerateRequest, StreamRequest
from lexora.v1.sampling_pb2 import SamplingParams
from tests.e2e.conftest import MODEL
from tests.support.servers import Gateway, Simulator

GRAMMAR = 'root ::= item (", " item)* "."\nitem ::= [0-9]{2} | "none"'
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "legs": {"type": "integer"}},
    "required": ["name", "legs"],
}
ASK = "Tell me about foxes."
# The shape of an answer, what the engine is asked for, and what every answer of this shape matches.
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "regex": ({"regex": r"[A-Z]{2}-\d{4}"}, {"structured_outputs": {"regex": r"[A-Z]{2}-\d{4}"}}, r"[A-Z]{2}-\d{4}"),
    "grammar": ({"grammar": GRAMMAR}, {"structured_outputs": {"grammar": GRAMMAR}}, r"(\d\d|none)(, (\d\d|none))*\."),
    "choice": ({"choice": {"texts": ["red", "green"]}}, {"structured_outputs": {"choice": ["red", "green"]}}, "red|green"),
    "json_object": ({"json_object": {}}, {"response_format": {"type": "json_object"}}, r"\{.*\}"),
    "json_schema": (
        {"json_schema": {"name": "animal", "schema_json": json.dumps(SCHEMA)}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "animal", "schema": SCHEMA}}},
        r'\{"name": ".*", "legs": \d+\}',
    ),
}


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[Client]:
    with Client(gateway.grpc, timeout=20) as client:
        yield client


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_has_the_shape_that_was_asked_for(client: Client, sim: Simulator, shape: str) -> None:
    asked, sent, expected = SHAPES[shape]
    answer = client.chat(MODEL, ASK, response_format=asked)
    body = json.loads(sim.posts()[-1]["body"])
    assert {name: body[name] for name in ("structured_outputs", "response_format") if name in body} == sent
    assert re.fullmatch(expected, answer.text), answer.text
    with client.stream(MODEL, ASK, response_format=asked) as stream:
        assert "".join(stream) == answer.text


def test_what_the_engine_cannot_follow_is_its_own_error(client: Client) -> None:
    for wrong in ({"regex": "("}, {"grammar": "root ::= nothing"}):
        with pytest.raises(LexoraError) as refused:
            client.chat(MODEL, ASK, response_format=wrong)
        assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UPSTREAM_ERROR")


def test_token_ids_are_those_of_the_text(client: Client, http: httpx.Client) -> None:
    def text(ids: Any) -> str:
        return str(http.post("/detokenize", json={"model": MODEL, "tokens": list(ids)}).raise_for_status().json()["prompt"])

    answer = client.chat(MODEL, ASK, max_tokens=12, seed=1, return_token_ids=True).response
    (choice,) = answer.choices
    assert (len(answer.prompt_token_ids), len(choice.token_ids)) == (answer.usage.input_tokens, 12)
    assert text(choice.token_ids) == choice.message.text
    sampling = SamplingParams(max_tokens=12, seed=1, return_token_ids=True)
    request = CompletionRequest(
        model=MODEL, token_ids={"ids": [*answer.prompt_token_ids, *choice.token_ids[:5]]}, sampling=sampling
    )
    request.sampling.max_tokens = 7
    rest = client.router.Generate(GenerateRequest(call=Call(completion=request)), timeout=20).completion.choices[0]
    assert list(rest.token_ids) == list(choice.token_ids[5:]), "a completion goes on where the chat was cut"
    assert list(rest.prompt_token_ids) == list(request.token_ids.ids)
    pieces = [
        message.delta.completion.choices[0]
        for message in client.router.Stream(StreamRequest(call=Call(completion=request)), timeout=20)
        if message.HasField("delta")
    ]
    assert [number for piece in pieces for number in piece.token_ids] == list(rest.token_ids)


def test_a_stop_is_named(client: Client) -> None:
    ids = client.chat(MODEL, ASK, max_tokens=6, seed=1, return_token_ids=True).response.choices[0].token_ids
    (choice,) = client.chat(MODEL, ASK, max_tokens=6, seed=1, stop_token_ids=[ids[3]]).response.choices
    assert choice.matched_stop.token_id == ids[3]


def test_the_prompt_has_log_probabilities(client: Client) -> None:
    answer = client.chat(MODEL, ASK, max_tokens=1, prompt_logprobs=2, return_token_ids=True).response
    first, *rows = answer.prompt_logprobs
    assert (len(first.readings), len(rows) + 1) == (0, answer.usage.input_tokens)
    for number, row in zip(answer.prompt_token_ids[1:], rows, strict=True):
        assert [reading.rank for reading in row.readings] == [1, 2]
        assert (row.readings[0].token_id, row.readings[0].logprob < 0) == (number, True)
    assert "".join(row.readings[0].token for row in rows).count("foxes") == 1
    with pytest.raises(LexoraError, match="not available when `stream=True`"):
        list(client.stream(MODEL, ASK, prompt_logprobs=1))
