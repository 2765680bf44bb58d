import json
from typing import cast

import pytest
from tests.support.clock import jumping
from tests.unit.router.support import make_call

from lexora_router.call import Call
from lexora_router.choosing.chooser import MAX_CANDIDATES, Chooser
from lexora_router.choosing.decide.label import Label
from lexora_router.choosing.decide.ranking import Offer
from lexora_router.choosing.labeller import Labeller
from lexora_router.errors import ClassifierDisabled, InvalidRequest, ModelNotFound
from lexora_router.principal import Principal

CODE = Label("code", 0.9, "why", "rules")


class FakeModels:
    def __init__(self, *names: str, takes_all: bool = False) -> None:
        capabilities = {"coder": ("code",), "chat": ("general",)}
        self.known = {
            name: Offer(name, capabilities.get(name, ("general",)), available=True) for name in ("coder", "chat", *names)
        }
        self.takes_all = takes_all

    def offers(self) -> list[Offer]:
        return [self.known["coder"], self.known["chat"]]

    def offer(self, model: str) -> Offer | None:
        return self.known.get(model)

    def takes(self, model: str) -> bool:
        return self.takes_all or model in self.known


class FakeLabeller:
    def __init__(self, label: Label) -> None:
        self.answer = label
        self.asked: list[str] = []

    async def label(self, text: str, call: Call) -> Label:
        self.asked.append(text)
        return self.answer

    def predict(self, text: str, call: Call) -> Label:
        return self.answer

    async def close(self) -> None:
        self.asked.append("closed")


def chooser(
    label: Label | None = CODE, *, models: FakeModels | None = None, default: str | None = "chat"
) -> tuple[Chooser, FakeLabeller]:
    labeller = FakeLabeller(label or CODE)
    given = None if label is None else cast("Labeller", labeller)
    return Chooser(models or FakeModels(), given, default), labeller


def auto_call(text: str = "Fix it.", **changes: object) -> Call:
    body = json.dumps({"model": "auto", "n": 2**60, "messages": [{"role": "user", "content": text}]}).encode()
    return make_call(model="auto", **({"body": body} | changes))


@jumping
async def test_a_task_is_normalised_and_gets_a_model() -> None:
    made, labeller = chooser()
    choice = await made.choose(" Fix\n it. ", (), make_call())
    assert (choice.model, choice.alternatives) == ("coder", (("chat", 0.3),))
    assert labeller.asked == ["Fix it."]


@jumping
async def test_candidates_restrict_and_may_be_models_that_are_only_listed() -> None:
    made, _ = chooser(models=FakeModels("listed"))
    choice = await made.choose("t", ["chat", "listed", "chat"], make_call())
    assert (choice.model, choice.alternatives) == ("chat", (("listed", 0.3),))


@pytest.mark.parametrize(
    ("candidates", "says"),
    [
        (["chat", "gone", "x" * 5000], f"`gone`, `{'x' * 100}`."),
        (["a", "b", "c", "d"], "`a`, `b`, `c` and others."),
        (["chat"] * (MAX_CANDIDATES + 1), "at most 1000"),
    ],
)
@jumping
async def test_candidates_that_nobody_has_are_named(candidates: list[str], says: str) -> None:
    made, labeller = chooser()
    with pytest.raises(InvalidRequest, match="candidate_models") as raised:
        await made.choose("t", candidates, make_call())
    assert says in raised.value.message
    assert raised.value.param == "candidate_models"
    assert labeller.asked == []


@pytest.mark.parametrize(("label", "default", "key"), [(None, "chat", "enabled"), (CODE, None, "default_model")])
@jumping
async def test_without_a_classifier_or_a_default_model_it_refuses(label: Label | None, default: str | None, key: str) -> None:
    made, _ = chooser(label, default=default)
    for refused in (made.choose("t", (), make_call()), made.resolve_auto(auto_call())):
        with pytest.raises(ClassifierDisabled, match=key):
            await refused


@jumping
async def test_a_default_model_that_is_not_configured_can_be_recommended() -> None:
    made, _ = chooser(Label("", 0.0, "Unknown.", ""), default="listed")
    choice = await made.choose("t", (), make_call())
    assert (choice.model, choice.by) == ("listed", "default")


@pytest.mark.parametrize(
    ("models", "chosen"),
    [
        (("chat",), "chat"),  # though another fits better
        (("coder",), "coder"),
        (("listed", "chat"), "chat"),
        (("nothing",), None),
    ],
)
@jumping
async def test_a_principal_gets_a_model_that_it_may_use(models: tuple[str, ...], chosen: str | None) -> None:
    principal = Principal("acme", models=models)
    for default in ("chat", "listed"):
        made, _ = chooser(models=FakeModels("listed"), default=default)
        call = auto_call(principal=principal)
        if chosen is None:
            for asked in (made.choose("t", (), call), made.resolve_auto(call)):
                with pytest.raises(ModelNotFound, match="`auto`"):
                    await asked
            with pytest.raises(ModelNotFound):
                made.predict(call)
            continue
        choice = await made.choose("t", (), call)
        names = {choice.model, *(name for name, _ in choice.alternatives)}
        assert choice.model == chosen
        assert all(principal.may_use(name) for name in names)
        assert not any(f"`{name}`" in choice.reasoning for name in {"coder", "chat", "listed"} - names)
        assert made.predict(call) == choice
        await made.resolve_auto(call)
        assert call.model == chosen


@jumping
async def test_a_candidate_that_may_not_be_used_is_none_that_exists() -> None:
    made, _ = chooser()
    said = []
    for name in ("coder", "gone"):
        with pytest.raises(InvalidRequest) as refused:
            await made.choose("t", [name], make_call(principal=Principal("acme", models=("chat",))))
        said.append(refused.value.message.replace(f"`{name}`", "NAME"))
    assert said[0] == said[1]


@jumping
async def test_auto_that_is_a_name_like_others_needs_to_be_allowed() -> None:
    made, _ = chooser(models=FakeModels("auto"))
    with pytest.raises(ModelNotFound):
        await made.resolve_auto(auto_call(principal=Principal("acme", models=("chat",))))
    await made.resolve_auto(auto_call(principal=Principal("acme", models=("a*",))))


@jumping
async def test_auto_becomes_the_model_that_fits() -> None:
    made, labeller = chooser()
    call = auto_call()
    await made.resolve_auto(call)
    assert (call.model, json.loads(call.body)["model"], json.loads(call.body)["n"]) == ("coder", "coder", 2**60)
    assert call.receipt.auto is not None
    assert (call.receipt.auto.model, call.receipt.auto.by) == ("coder", "rules")
    assert labeller.asked == ["Fix it."]


@jumping
async def test_a_call_without_text_goes_to_the_default_model() -> None:
    made, labeller = chooser()
    call = auto_call("")
    await made.resolve_auto(call)
    assert call.receipt.auto is not None
    assert (call.model, call.receipt.auto.reasoning) == (
        "chat",
        "There is no text to classify. So it is the default model `chat`.",
    )
    assert labeller.asked == []


@pytest.mark.parametrize(
    ("models", "label", "path"),
    [
        (FakeModels("auto"), CODE, "/v1/chat/completions"),
        (FakeModels("auto"), None, "/v1/chat/completions"),
        (FakeModels(takes_all=True), None, "/v1/chat/completions"),
        (FakeModels(), CODE, "/v1/embeddings"),
        (FakeModels(), None, "/v1/embeddings"),
    ],
    ids=[
        "a model of the name",
        "the same, switched off",
        "a default backend, switched off",
        "no chat",
        "no chat, switched off",
    ],
)
@jumping
async def test_where_auto_is_a_name_like_any_other(models: FakeModels, label: Label | None, path: str) -> None:
    made, labeller = chooser(label, models=models)
    call = auto_call(path=path)
    before = call.body
    await made.resolve_auto(call)
    assert (call.model, call.body, call.receipt.auto) == ("auto", before, None)
    assert labeller.asked == []


@jumping
async def test_what_auto_would_become_is_foretold_and_changes_nothing() -> None:
    made, labeller = chooser()
    call = auto_call()
    before = call.body
    choice = made.predict(call)
    assert choice is not None
    assert (choice.model, call.model, call.body, call.receipt.auto) == ("coder", "auto", before, None)
    assert labeller.asked == []
    assert chooser(models=FakeModels("auto"))[0].predict(call) is None
    with pytest.raises(ClassifierDisabled):
        chooser(None)[0].predict(call)


@jumping
async def test_close_reaches_the_labeller() -> None:
    made, labeller = chooser()
    await made.close()
    assert labeller.asked == ["closed"]
    await chooser(None)[0].close()
