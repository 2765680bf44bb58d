import json
from typing import Any

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import give

from lexora_contract.answer import Head, Reply
from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.choosing.ask import TENANT, Ask, Cause
from lexora_router.choosing.stages import BATCH, ByExample, ByModel, Learned
from lexora_router.config import EmbeddingConfig, ExampleConfig
from lexora_router.errors import RouterError, UpstreamInvalid, UpstreamRefused

CAUSE = Cause("call-1", (("traceparent", "00-a-b-01"),), 2000.0)
HEAD = Head(200, "application/json")
KINDS = ["code", "general"]


class Engine:
    """A pipeline whose answers are laid down: JSON values, or errors to raise."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[Call] = []

    async def __call__(self, call: Call, sink: Sink) -> None:
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, RouterError):
            raise answer
        give(call, sink, answer if isinstance(answer, Head) else Reply(HEAD, json.dumps(answer).encode()))

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(call.body) for call in self.calls]


def chat(text: str) -> Any:
    return {"choices": [{"message": {"content": text}}]}


SAYS_CODE = chat('{"task_type": "code", "confidence": 0.8, "reasoning": "It is."}')
REFUSED = UpstreamRefused(400, "application/json", b"{}")


@jumping
async def test_a_question_is_a_call_of_the_router_s_own() -> None:
    engine = Engine(SAYS_CODE)
    label = await ByModel(Ask(engine, now), "judge", KINDS, switches_thinking=True).label("a task", CAUSE)
    assert label is not None
    assert (label.task_type, label.confidence, label.by) == ("code", 0.8, "llm")
    [call] = engine.calls
    assert (call.id, call.tenant, call.priority, call.model) == ("call-1-classify", TENANT, 100, "judge")
    assert (call.path, call.stream, call.deadline, call.trace) == ("/v1/chat/completions", False, 2000.0, CAUSE.trace)
    assert call.started == now()


@jumping
async def test_the_identity_of_a_question_stays_within_its_bound() -> None:
    engine = Engine(SAYS_CODE)
    await ByModel(Ask(engine, now), "judge", KINDS, switches_thinking=True).label("t", Cause("x" * 128, (), 2000.0))
    assert len(engine.calls[0].id) <= 128


@jumping
async def test_an_engine_that_refuses_the_schema_is_asked_without_from_then_on() -> None:
    engine = Engine(REFUSED, SAYS_CODE, SAYS_CODE)
    stage = ByModel(Ask(engine, now), "judge", KINDS, switches_thinking=False)
    for _ in range(2):
        assert await stage.label("t", CAUSE) is not None
    assert ["response_format" in body for body in engine.bodies] == [True, False, False]


@pytest.mark.parametrize(
    ("answers", "asked"), [([REFUSED, REFUSED], 2), ([UpstreamRefused(401, "application/json", b"{}")], 1)], ids=["400", "401"]
)
@jumping
async def test_a_refusal_is_an_error(answers: list[RouterError], asked: int) -> None:
    engine = Engine(*answers, SAYS_CODE)
    stage = ByModel(Ask(engine, now), "judge", KINDS, switches_thinking=True)
    with pytest.raises(UpstreamRefused):
        await stage.label("t", CAUSE)
    assert len(engine.calls) == asked
    assert await stage.label("t", CAUSE) is not None
    assert "response_format" in engine.bodies[-1], "what was refused was not the schema"


@pytest.mark.parametrize("text", ["qwen3-32b", '{"task_type": "qwen3-32b"}', '{"task_type": "unknown"}', ""])
@jumping
async def test_a_model_that_names_no_kind_abstains(text: str) -> None:
    assert await ByModel(Ask(Engine(chat(text)), now), "judge", KINDS, switches_thinking=True).label("t", CAUSE) is None


@jumping
async def test_a_stream_is_no_answer() -> None:
    with pytest.raises(UpstreamInvalid):
        await ByModel(Ask(Engine(HEAD), now), "judge", KINDS, switches_thinking=True).label("t", CAUSE)


# -- examples


def vectors(*found: list[float]) -> Any:
    return {"data": [{"index": index, "embedding": vector} for index, vector in reversed(list(enumerate(found)))]}


def config(*capabilities: str, min_similarity: float = 0.5) -> EmbeddingConfig:
    examples = tuple(ExampleConfig(text=f"example {n}", capability=name) for n, name in enumerate(capabilities))
    return EmbeddingConfig(model="vec", min_similarity=min_similarity, examples=examples)


def by_example(engine: Engine, of: EmbeddingConfig, learned: Learned | None = None) -> ByExample:
    return ByExample(Ask(engine, now), of, frozenset(KINDS), learned or Learned())


@jumping
async def test_the_examples_are_embedded_once_and_the_nearest_decides() -> None:
    engine = Engine(vectors([1, 0], [0, 2]), vectors([0.1, 1]), vectors([3, 0]))
    learned = Learned()
    stage = by_example(engine, config("code", "general"), learned)
    for kind in ("general", "code"):
        label = await stage.label("a task " + "x" * 5000, CAUSE)
        assert label is not None
        assert label.task_type == kind
    assert [len(body["input"]) for body in engine.bodies] == [2, 1, 1]
    assert len(engine.bodies[1]["input"][0]) == 1000
    assert {call.path for call in engine.calls} == {"/v1/embeddings"}
    other = Engine(vectors([1, 0]))
    assert await by_example(other, config("code", "general"), learned).label("t", CAUSE) is not None
    assert len(other.calls) == 1, "what was learned is handed on"


@jumping
async def test_nothing_near_is_an_abstention() -> None:
    engine = Engine(vectors([1, 0]), vectors([1, 1]))
    assert await by_example(engine, config("code", min_similarity=0.8)).label("t", CAUSE) is None


@jumping
async def test_what_was_learned_before_a_failure_is_kept() -> None:
    many = config(*["code"] * BATCH, "general", "vision")
    engine = Engine(vectors(*[[1, 0]] * BATCH), REFUSED, vectors([0, 1]), vectors([0, 1]))
    stage = by_example(engine, many)
    with pytest.raises(UpstreamRefused):
        await stage.label("t", CAUSE)
    label = await stage.label("t", CAUSE)
    assert label is not None
    assert label.task_type == "general"
    assert [len(body["input"]) for body in engine.bodies] == [BATCH, 1, 1, 1], "and no model can see"


@pytest.mark.parametrize(
    "answer", [{}, {"data": "x"}, vectors(), vectors([]), vectors([0, 0]), vectors([1] * 8193), vectors([1], [1])]
)
@jumping
async def test_what_holds_no_vectors_is_an_error(answer: Any) -> None:
    with pytest.raises(UpstreamInvalid):
        await by_example(Engine(answer), config("code")).label("t", CAUSE)


@jumping
async def test_vectors_of_other_lengths_do_not_pass_for_near() -> None:
    """An engine that changed its model under the same name."""
    engine = Engine(vectors([1, 0, 0]), vectors([1, 0]), vectors([1, 0]), vectors([1, 0]))
    stage = by_example(engine, config("code"))
    with pytest.raises(UpstreamInvalid):
        await stage.label("t", CAUSE)
    assert await stage.label("t", CAUSE) is not None, "the examples were embedded again"
