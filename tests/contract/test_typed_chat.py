"""The typed form of a chat, unary: what reaches the engine, and what comes back."""

import json

import pytest

from lexora.v1 import chat_pb2, router_pb2, tokens_pb2
from tests.contract.messages import COUNTED, ID, answer, chat, receipt, unary
from tests.support.links import ALL_WAYS, Link
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import reply

USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize("link", ALL_WAYS, indirect=True)
async def test_a_chat(link: Link, engine: LoopEngine) -> None:
    engine.answer(reply(answer()))
    outcome = await link.generate(unary(chat=chat()))
    assert outcome.only == router_pb2.GenerateResponse(
        receipt=receipt(engine.url, usage=COUNTED),
        chat=chat_pb2.ChatResponse(
            id="c1",
            model="m",
            create_time={"seconds": 1},
            choices=[
                chat_pb2.ChatChoice(
                    message=chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, text="Hello"),
                    finish_reason=tokens_pb2.FINISH_REASON_STOP,
                    finish_reason_raw="stop",
                )
            ],
            usage=COUNTED,
        ),
    )
    (request,) = engine.requests
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    assert json.loads(request.body) == {"model": "m", "messages": [USER]}
    assert request.header("x-request-id") == ID


@pytest.mark.parametrize("backend", [{"model_mapping": {"m": "org/m-7b"}}])
async def test_no_model_means_the_default_one_and_mapping_applies(link: Link, engine: LoopEngine) -> None:
    engine.answer(reply(answer()))
    outcome = await link.generate(unary(chat=chat(model="")))
    assert outcome.only.receipt == receipt(engine.url, model="org/m-7b", usage=COUNTED)
    assert json.loads(engine.requests[0].body)["model"] == "org/m-7b"
