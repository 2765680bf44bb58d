"""Classification and the model `auto`, in every way to the router."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lexora.v1 import (
    call_pb2,
    chat_pb2,
    classify_pb2,
    completion_pb2,
    errors_pb2,
    explain_pb2,
    raw_pb2,
    receipt_pb2,
    router_pb2,
)
from lexora_contract.messages import receipt_of
from lexora_gateway.headers import receipt_headers
from lexora_router.config import Config
from tests.contract.conftest import config_of
from tests.support.links import WAYS, Link, linked
from tests.support.loop_engine import LoopEngine

RULES = [{"capability": "コード", "words": ["python"]}]
MODELS = [{"name": "m", "capabilities": ["general"]}, {"name": "org/codér:v2", "capabilities": ["コード"]}]
HEADER = "org/cod%C3%A9r:v2;confidence=0.90;task=%E3%82%B3%E3%83%BC%E3%83%89;by=rules"
TASK = "Fix my python script."


def config(url: str) -> Config:
    routing = {
        "default_model_for_unknown_task": "m",
        "classifier": {"enabled": True, "type": ["rules"], "rules": RULES},
        "backends": {"main": {"url": url, "models": MODELS}},
    }
    return config_of(url, routing=routing)


@pytest.fixture(params=WAYS)
async def link(request: pytest.FixtureRequest, engine: LoopEngine, tmp_path: Path) -> AsyncIterator[Link]:
    async with linked(request.param, config(engine.url), tmp_path) as link:
        yield link
        await link.idle()


async def test_a_task_gets_a_model(link: Link) -> None:
    request = classify_pb2.ClassifyRequest(task_description=TASK)
    answer = (await link.ask("classify", request)).only
    assert (answer.recommended_model, answer.task_type, answer.classifier) == (
        "org/codér:v2",
        "コード",
        receipt_pb2.CLASSIFIER_RULES,
    )
    assert [(other.model, other.score) for other in answer.alternatives] == [("m", 0.3)]
    assert answer.receipt.request_id
    assert not answer.receipt.HasField("auto")
    request.candidate_models[:] = ["nobody", "m"]
    outcome = await link.ask("classify", request)
    assert (outcome.reason, outcome.failure.code) == ("INVALID_REQUEST", 3)
    assert "`nobody`" in outcome.failure.message


USER = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, text=TASK)
FORMS: dict[str, dict[str, Any]] = {
    "chat": {"chat": chat_pb2.ChatRequest(model="auto", messages=[USER])},
    "completion": {"completion": completion_pb2.CompletionRequest(model="auto", text=TASK)},
    "raw": {
        "raw": raw_pb2.RawCall(
            path="/v1/chat/completions",
            body=json.dumps({"model": "auto", "seed": 2**60, "messages": [{"role": "user", "content": TASK}]}).encode(),
        )
    },
}


@pytest.mark.parametrize("form", FORMS)
async def test_auto_is_told_in_the_receipt(link: Link, engine: LoopEngine, form: str) -> None:
    answer = (await link.generate(router_pb2.GenerateRequest(call=call_pb2.Call(**FORMS[form])))).only
    asked = json.loads(engine.requests[-1].body)
    assert asked["model"] == "org/codér:v2"
    assert form != "raw" or asked["seed"] == 2**60
    auto = answer.receipt.auto
    assert (auto.model, auto.task_type, round(auto.confidence, 3), auto.classifier) == (
        *("org/codér:v2", "コード", 0.9, receipt_pb2.CLASSIFIER_RULES),
    )
    assert dict(receipt_headers(receipt_of(answer.receipt)))[b"x-lexora-model"] == HEADER.encode()
    named = await link.generate(
        router_pb2.GenerateRequest(call=call_pb2.Call(chat=chat_pb2.ChatRequest(model="m", messages=[USER])))
    )
    assert not named.only.receipt.HasField("auto")


async def explained(link: Link, **fields: Any) -> explain_pb2.ExplainResponse:
    answer = (await link.ask("explain", explain_pb2.ExplainRequest(**fields))).only
    assert isinstance(answer, explain_pb2.ExplainResponse)
    return answer


async def test_an_explanation_of_auto_says_what_would_be_chosen(link: Link, engine: LoopEngine) -> None:
    answer = await explained(link, call=call_pb2.Call(**FORMS["raw"]))
    route = answer.route
    assert (route.asked, route.model, route.rule, route.auto.classifier) == (
        *("auto", "org/codér:v2", explain_pb2.ROUTE_RULE_AUTO, receipt_pb2.CLASSIFIER_RULES),
    )
    assert "`auto` becomes `org/codér:v2`, of kind `コード`" in route.reason
    assert (answer.verdict, [target.model for target in answer.targets]) == (explain_pb2.VERDICT_DISPATCH, ["org/codér:v2"])
    unknown = await explained(link, model="auto")
    assert (unknown.route.model, unknown.route.auto.classifier) == ("m", receipt_pb2.CLASSIFIER_DEFAULT)
    assert engine.requests == []


async def test_an_explanation_of_auto_where_nothing_is_classified(engine: LoopEngine, tmp_path: Path) -> None:
    made = config_of(engine.url, routing={"backends": {"main": {"url": engine.url, "models": ["m"]}}})
    async with linked("in process", made, tmp_path) as link:
        answer = await explained(link, model="auto")
    assert (answer.verdict, answer.error, answer.route.rule) == (
        explain_pb2.VERDICT_REJECT,
        errors_pb2.ERROR_REASON_CLASSIFIER_DISABLED,
        explain_pb2.ROUTE_RULE_NONE,
    )
    assert "routing.classifier.enabled" in answer.route.reason
