"""Whatever a client sends, the answer is a 200 or a 4xx, and nothing stays behind."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lexora_sim import Simulator
from tests.unit.sim.helpers import chat, post

ODD: list[dict[str, Any]] = [
    {"messages": [1]},
    {"messages": [{"role": 5, "content": 7}]},
    {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "x"}}, 3, {"text": 4}]}]},
    {"tools": [1]},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": 3}}]},
    {"tool_choice": "required"},
    {"tool_choice": {}, "tools": [{"function": {"name": "f"}}]},
    {"tool_choice": 3, "tools": [{"function": {"name": "f"}}]},
    {"response_format": 3},
    {"response_format": {"type": "json_schema"}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array", "minItems": "x"}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": 3}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/nowhere"}}}},
    {"structured_outputs": {"json": "{"}},
    {"structured_outputs": {"choice": [1, None]}},
    {"stop": [1]},
    {"stop": {"a": 1}},
    {"stop_token_ids": ["x"]},
    {"seed": 2**80},
    {"seed": 1e400},
    {"n": 10_000},
    {"top_logprobs": 99, "logprobs": True},
    {"priority": 2**70},
    {"temperature": "warm"},
    {"model": 3},
    {"model": None},
    {"stream_options": []},
]


@pytest.mark.parametrize("fields", ODD)
async def test_odd_fields(sim: Simulator, fields: dict[str, Any]) -> None:
    answer = await chat(sim, **{"max_tokens": 2, **fields})
    assert answer.status in (200, 400, 404)
    assert sim.app.scheduler.running == 0


async def test_a_schema_that_would_explode(sim: Simulator) -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(20):
        schema = {"type": "array", "items": schema, "minItems": 60}
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert (await chat(sim, max_tokens=2, response_format=wanted)).status == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("messages", "prompt", "input", "tools", "tool_choice", "response_format", "stop", "query", "documents", "text_1")
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/rerank", "/score")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
@example(path="/v1/embeddings", fields={"messages": [None]})
async def test_random_bodies(sim: Simulator, path: str, fields: dict[str, Any]) -> None:
    base = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x", "query": "q", "max_tokens": 2}
    answer = await post(sim, path, {**base, "documents": ["d"], "text_1": "a", "text_2": "b", **fields})
    assert answer.status in (200, 400, 404)
