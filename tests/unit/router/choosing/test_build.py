from typing import Any

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import Scripted, make_call

from lexora_router.choosing.build import build_chooser, pinned, recall
from lexora_router.choosing.decide.label import Label
from lexora_router.choosing.decide.ranking import Offer
from lexora_router.config import Config
from lexora_router.errors import ClassifierDisabled

RULES = [{"capability": "code", "words": ["python"]}]
EXAMPLES = [{"text": "t", "capability": "code"}]


class NoModels:
    def offers(self) -> list[Offer]:
        return [Offer("coder", ("code",), available=True)]

    def offer(self, model: str) -> Offer | None:
        return None

    def takes(self, model: str) -> bool:
        return False


def config(*, capability: str = "code", timeout: float = 5.0, **classifier: Any) -> Config:
    models = [{"name": "coder", "capabilities": [capability]}]
    backends = {"main": {"url": "http://e:1", "models": models, "timeout": timeout}, "other": {"url": "http://e:2"}}
    routing = {
        "default_model_for_unknown_task": "coder",
        "classifier": {"enabled": True, "type": "rules", "rules": RULES, **classifier},
        "backends": backends,
    }
    return Config.model_validate({"routing": routing})


@jumping
async def test_what_is_known_holds_while_the_classifiers_are_the_same() -> None:
    known = recall(config(), None)
    assert recall(config(timeout=7.0), known) is known
    for changed in (config(min_confidence=0.4), config(cache_size=5), config(capability="vision")):
        assert recall(changed, known) is not known


@jumping
async def test_the_classifiers_are_asked_in_the_order_of_the_configuration() -> None:
    made = config(type=["llm", "rules", "embedding"], model="judge", embedding={"model": "vec", "examples": EXAMPLES})
    pipeline = Scripted()
    chooser = build_chooser(made, NoModels(), recall(made, None), pipeline, now)
    labeller = chooser._labeller
    assert labeller is not None
    assert [stage.name for stage in labeller._stages] == ["llm", "rules", "embedding"]


@jumping
async def test_what_is_remembered_is_used() -> None:
    made = config()
    known = recall(made, None)
    chooser = build_chooser(made, NoModels(), known, Scripted(), now)
    choice = await chooser.choose("some python", (), make_call())
    assert (choice.model, choice.by) == ("coder", "rules")
    assert len(known.labels) == 1
    assert isinstance(known.labels._kept.popitem()[1][1], Label)


@jumping
async def test_switched_off() -> None:
    made = config(enabled=False)
    with pytest.raises(ClassifierDisabled):
        await build_chooser(made, NoModels(), recall(made, None), Scripted(), now).choose("t", (), make_call())


@pytest.mark.parametrize(
    ("backend", "found"), [("other", {"judge": "other"}), (None, {}), ("gone", {})], ids=["named", "unnamed", "not there"]
)
def test_the_backend_of_a_classifier(backend: str | None, found: dict[str, str]) -> None:
    assert pinned(config(model="judge", backend=backend)) == found
