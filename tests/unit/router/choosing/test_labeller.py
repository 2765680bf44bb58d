import asyncio
from typing import Any

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import make_call

from lexora_router.choosing.ask import Cause
from lexora_router.choosing.decide.cache import Memory
from lexora_router.choosing.decide.label import Label
from lexora_router.choosing.decide.rules import compile_rules
from lexora_router.choosing.labeller import MAX_TIMEOUTS, REST_SECONDS, Labeller
from lexora_router.choosing.stages import ByRules, Stage
from lexora_router.config import RuleConfig
from lexora_router.errors import DeadlineExceeded, RouterError, UpstreamUnreachable

SURE = Label("code", 0.9, "why", "fake")
UNSURE = Label("code", 0.4, "why", "fake")


class Fake:
    """A stage that answers after `seconds`."""

    def __init__(self, answer: Label | RouterError | None, seconds: float = 0.0, name: str = "fake") -> None:
        self.name = name
        self.answer = answer
        self.seconds = seconds
        self.asked: list[str] = []
        self.origins: list[Cause] = []
        self.cancelled = 0

    async def label(self, text: str, cause: Cause) -> Label | None:
        self.asked.append(text)
        self.origins.append(cause)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, RouterError):
            raise self.answer
        return self.answer


def labeller(*stages: Stage, ttl: float = 300.0, **changes: Any) -> Labeller:
    fields: dict[str, Any] = {"min_confidence": 0.5, "timeout": 5.0, "memory": Memory(100, ttl), "clock": now}
    return Labeller(stages, **(fields | changes))


@jumping
async def test_the_first_one_that_is_sure_decides() -> None:
    stages = [Fake(None, name="one"), Fake(UNSURE, name="two"), Fake(SURE, name="three"), Fake(SURE, name="four")]
    assert await labeller(*stages).label("t", make_call()) is SURE
    assert [len(stage.asked) for stage in stages] == [1, 1, 1, 0]


@jumping
async def test_when_nobody_is_sure_the_reason_tells_of_all() -> None:
    stages = [Fake(None, name="one"), Fake(UNSURE, name="two"), Fake(UpstreamUnreachable("http://secret"), name="three")]
    label = await labeller(*stages).label("t", make_call())
    assert (label.task_type, label.confidence) == ("", 0.0)
    assert label.reasoning == (
        "The kind of task is unknown (one: abstained; two: code with a confidence of only 0.40; "
        "three: failed (UPSTREAM_UNREACHABLE))."
    )


@jumping
async def test_an_answer_is_remembered_for_its_time() -> None:
    for answer in (SURE, None):
        stage = Fake(answer)
        made = labeller(stage)
        first = await made.label("t", make_call())
        assert await made.label("t", make_call()) == first
        assert len(stage.asked) == 1
        await made.label("another", make_call())
        await asyncio.sleep(300)
        await made.label("t", make_call())
        assert stage.asked == ["t", "another", "t"]


@jumping
async def test_a_failure_is_not_remembered() -> None:
    stage = Fake(UpstreamUnreachable("down"))
    made = labeller(stage)
    assert (await made.label("t", make_call())).task_type == ""
    stage.answer = SURE
    assert await made.label("t", make_call()) is SURE


@pytest.mark.parametrize("late", [Fake(SURE, 100.0), Fake(DeadlineExceeded("over"), 4.999)])
@jumping
async def test_all_of_them_together_have_one_budget(late: Fake) -> None:
    after = Fake(SURE, name="after")
    began = now()
    label = await labeller(Fake(None, 3.0, name="slow"), late, after).label("t", make_call())
    assert now() - began == pytest.approx(min(5.0, 3.0 + late.seconds))
    assert label.task_type == ""
    assert "fake: no answer within 5 s" in label.reasoning
    assert after.asked == []
    assert late.origins[-1].deadline == pytest.approx(began + 5.0)


@jumping
async def test_one_that_is_too_slow_again_and_again_is_left_alone_for_a_while() -> None:
    stage, other = Fake(SURE, 100.0), Fake(None, name="other")
    made = labeller(other, stage)
    for number in range(MAX_TIMEOUTS):
        await made.label(f"t{number}", make_call())
    began = now()
    label = await made.label("more", make_call())
    assert now() == began
    assert "fake: too slow lately" in label.reasoning
    assert (len(stage.asked), len(other.asked)) == (MAX_TIMEOUTS, MAX_TIMEOUTS + 1)
    await asyncio.sleep(REST_SECONDS)
    stage.seconds = 0.0
    assert await made.label("more", make_call()) is SURE, "it was not remembered, and the rest is over"


@jumping
async def test_who_asks_the_same_at_the_same_time_shares_one_question() -> None:
    stage = Fake(SURE, 1.0)
    made = labeller(stage)
    answers = await asyncio.gather(*(made.label("t", make_call(id=f"c{number}")) for number in range(10)))
    assert answers == [SURE] * 10
    assert len(stage.asked) == 1
    assert stage.origins[0].id == "c0"


@jumping
async def test_a_client_that_leaves_takes_nothing_from_the_others() -> None:
    stage = Fake(SURE, 1.0)
    made = labeller(stage)
    first, second = (asyncio.create_task(made.label("t", make_call())) for _ in range(2))
    await asyncio.sleep(0.5)
    first.cancel()
    assert await second is SURE
    assert first.cancelled()
    assert (len(stage.asked), stage.cancelled) == (1, 0)


@jumping
async def test_when_the_last_client_leaves_the_question_ends() -> None:
    stage = Fake(SURE, 1.0)
    made = labeller(stage)
    tasks = [asyncio.create_task(made.label("t", make_call())) for _ in range(2)]
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await made.label("t", make_call()) is SURE, "who comes now begins anew"
    assert (len(stage.asked), stage.cancelled) == (2, 1)


@jumping
async def test_close_ends_what_is_under_way() -> None:
    stage = Fake(SURE, 100.0)
    made = labeller(stage, timeout=1000.0)
    waiting = asyncio.create_task(made.label("t", make_call()))
    await asyncio.sleep(1)
    await made.close()
    await asyncio.gather(waiting, return_exceptions=True)
    assert stage.cancelled == 1


RULES = ByRules(compile_rules([RuleConfig(capability="code", words=("python",))], frozenset({"code"})))


@jumping
async def test_what_would_be_said_is_foretold_without_asking_anybody() -> None:
    stage = Fake(Label("chat", 0.8, "why", "fake"))
    made = labeller(RULES, stage)
    assert made.predict("some python", make_call()).task_type == "code"
    assert made.predict("t", make_call()) == Label("", 0.0, "The kind of task is not known before fake is asked.", "")
    assert labeller(RULES).predict("t", make_call()).reasoning == "The kind of task is unknown to the rules."
    assert labeller(RULES, min_confidence=0.95).predict("some python", make_call()).task_type == ""
    assert stage.asked == []
    await made.label("t", make_call())
    assert made.predict("t", make_call()).task_type == "chat", "it is remembered"
