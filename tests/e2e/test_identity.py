"""Who is charged for a call, by every way in: as an explanation has it, and as the account of a call that is made."""

from typing import Any

import httpx
import msgspec
import pytest

from lexora.v1.common_pb2 import CallOptions
from lexora.v1.explain_pb2 import ExplainRequest
from lexora.v1.openai_pb2 import OpenAiCall
from lexora.v1.stats_pb2 import GetStatsRequest
from tests.support import load
from tests.support.queueing import CHAT, MODEL, grpc_stub
from tests.support.servers import Gateway

MESSAGES = "/v1/messages"
HI = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
CLAUDE = "user_" + "d" * 64 + "_account_0b9d7c52-2f6a-4f0f-8f7b-6f1d2c3b4a59"

FIELDS: list[tuple[str, dict[str, Any], str]] = [
    (MESSAGES, {"metadata": {"user_id": f"{CLAUDE}_session_1"}}, CLAUDE),
    (MESSAGES, {"metadata": {"user_id": f"{CLAUDE}_session_2"}}, CLAUDE),
    (CHAT, {"safety_identifier": "s", "metadata": {"user_id": "m"}}, "s"),
    (CHAT, {"user": "u", "safety_identifier": "s"}, "u"),
    ("/v1/responses", {"input": "Hi", "safety_identifier": "s"}, "s"),
]


@pytest.mark.parametrize(("path", "fields", "user"), FIELDS)
async def test_fields_that_stand_in_for_user(gateway: Gateway, path: str, fields: dict[str, Any], user: str) -> None:
    body = HI | fields
    async with load.client(gateway.http) as one, grpc_stub(gateway) as stub:
        explained = await one.post(path, body, x_lexora_explain="1")
        assert (explained.status, explained.json["tenant"]["user"]) == (200, user)
        assert (await one.post(path, body)).status == 200
        assert user in (await stub.GetStats(GetStatsRequest())).by_tenant
        call = OpenAiCall(path=path, body=msgspec.json.encode(body))
        assert (await stub.Explain(ExplainRequest(openai=call))).tenant.user == user
        named = CallOptions(user="by the options")
        assert (await stub.Explain(ExplainRequest(options=named, openai=call))).tenant.user == "by the options"


async def test_prompt_cache_key_is_kept(gateway: Gateway) -> None:
    async with load.client(gateway.http) as one, grpc_stub(gateway) as stub:
        explained = await one.post(CHAT, HI | {"prompt_cache_key": "repository-7"}, x_lexora_explain="1")
        assert explained.json["prompt_cache_key"] == "repository-7"
        asked = ExplainRequest(options=CallOptions(prompt_cache_key="by the options"), model=MODEL)
        assert (await stub.Explain(asked)).prompt_cache_key == "by the options"


def test_what_names_nobody_is_for_the_engine_to_judge(http: httpx.Client) -> None:
    for fields in ({"metadata": ["x"]}, {"metadata": {"user_id": 5}}, {"safety_identifier": {}}, {"prompt_cache_key": 7}):
        assert http.post(CHAT, json=HI | fields).status_code == 200
    long = [http.post(CHAT, json=HI | {"user": "n" * 300 + end}, headers={"x-lexora-explain": "1"}) for end in "12"]
    names = [answer.json()["tenant"]["user"] for answer in long]
    assert len(set(names)) == 2
    assert {len(name) for name in names} == {256}
