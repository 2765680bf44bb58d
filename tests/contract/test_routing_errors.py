"""No such model, and no default: the same answer in every way."""

from pathlib import Path

import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest

from lexora_router.config import Config
from tests.contract.messages import answer, chat, raw_call, unary
from tests.support.links import WAYS, linked
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import reply


@pytest.mark.parametrize("way", WAYS)
async def test_an_unknown_model(engine: LoopEngine, tmp_path: Path, way: str) -> None:
    backends = {"main": {"url": engine.url, "models": ["other"]}}
    config = Config.model_validate({"routing": {"backends": backends, "strict_models": True}})
    async with linked(way, config, tmp_path) as link:
        for request in (unary(raw=raw_call()), unary(chat=chat())):
            outcome = await link.generate(request)
            assert (outcome.reason, outcome.failure.code) == ("MODEL_NOT_FOUND", code_pb2.NOT_FOUND)
            assert outcome.failure.message == (
                "The model `m` does not exist. GET /v1/models lists the models that can be asked."
            )
            assert outcome.detail(BadRequest).field_violations[0].field == "model"
        outcome = await link.generate(unary(chat=chat(model="")))
        assert outcome.reason == "INVALID_REQUEST"
        assert "no default model" in outcome.failure.message
        engine.answer(reply(answer()))
        assert (await link.generate(unary(chat=chat(model="other")))).status is None
    assert len(engine.requests) == 1
