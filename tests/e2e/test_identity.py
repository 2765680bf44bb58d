"""Who is charged for a call, by every way in: as an explanation has it, and as the account of a call that is made."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import msgspec
import pytest

from lexora.v1.call_pb2 import Call
from lexora.v1.explain_pb2 import ExplainRequest
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.stats_pb2 import GetStatsRequest
from tests.support import load
from tests.support.process import Process
from tests.support.queueing import CHAT, MODEL, Stub, grpc_stub
from tests.support.servers import LEXORA, Gateway, Simulator, calm_config

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
        call = RawCall(path=path, body=msgspec.json.encode(body))
        assert (await stub.Explain(ExplainRequest(call=Call(raw=call)))).tenant.user == user
        named = CallOptions(user="by the options")
        assert (await stub.Explain(ExplainRequest(call=Call(options=named, raw=call)))).tenant.user == "by the options"


async def test_prompt_cache_key_is_kept(gateway: Gateway) -> None:
    async with load.client(gateway.http) as one, grpc_stub(gateway) as stub:
        explained = await one.post(CHAT, HI | {"prompt_cache_key": "repository-7"}, x_lexora_explain="1")
        assert explained.json["prompt_cache_key"] == "repository-7"
        asked = ExplainRequest(call=Call(options=CallOptions(prompt_cache_key="by the options")), model=MODEL)
        assert (await stub.Explain(asked)).prompt_cache_key == "by the options"


def test_what_names_nobody_is_for_the_engine_to_judge(http: httpx.Client) -> None:
    for fields in ({"metadata": ["x"]}, {"metadata": {"user_id": 5}}, {"safety_identifier": {}}, {"prompt_cache_key": 7}):
        assert http.post(CHAT, json=HI | fields).status_code == 200
    long = [http.post(CHAT, json=HI | {"user": "n" * 300 + end}, headers={"x-lexora-explain": "1"}) for end in "12"]
    names = [answer.json()["tenant"]["user"] for answer in long]
    assert len(set(names)) == 2
    assert {len(name) for name in names} == {256}


# What proxies say


GATE, OTHER = "127.0.0.1", "127.0.0.2"
WAYS = ("one process", "two processes")


@pytest.fixture(scope="module")
def front(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The addresses of a gateway in one process and in two that trust GATE only, with default rate limits."""
    config = calm_config(main={"url": sim.url, "models": [MODEL]})
    config["server"]["trusted_proxies"] = [GATE]
    del config["rate_limit"]
    with Gateway(config, tmp_path_factory.mktemp("front")) as gateway:
        command = [*LEXORA, "gateway", "--router", gateway.grpc, "--config", str(gateway.config_file)]
        with Process(command) as process:
            second = process.wait_ready(r"http=\S*?(http://[\d.:]+)").group(1)
            yield {"one process": gateway.http, "two processes": second, "grpc": gateway.grpc}


def explained(base: str, sender: str, *headers: tuple[str, str], **body: Any) -> httpx.Response:
    """What becomes of a call from this address."""
    transport = httpx.HTTPTransport(local_address=sender, verify=False)
    with httpx.Client(base_url=base, transport=transport) as client:
        return client.post(CHAT, json=HI | body, headers=[*headers, ("x-lexora-explain", "1")])


def user_of(base: str, sender: str, *headers: tuple[str, str], **body: Any) -> str:
    return str(explained(base, sender, *headers, **body).raise_for_status().json()["tenant"]["user"])


NAMED, SPOOFED = ("x-lexora-user", "alice@example.com"), ("x-forwarded-for", "6.6.6.6, 9.9.9.9")
SHARED = ("x-lexora-tenant", "acme")


@pytest.mark.parametrize("way", WAYS)
def test_only_a_trusted_proxy_says_who_asks(front: dict[str, str], way: str) -> None:
    base = front[way]
    assert user_of(base, GATE, NAMED, user="in the body") == "alice@example.com"
    assert user_of(base, OTHER, NAMED, user="in the body") == "in the body"
    assert user_of(base, OTHER, NAMED) == f"anonymous@{OTHER}"
    assert user_of(base, GATE, SPOOFED) == "anonymous@9.9.9.9"
    assert user_of(base, GATE, SPOOFED, ("x-forwarded-for", f"2001:db8::7, {GATE}")) == "anonymous@2001:db8::/64"
    assert user_of(base, OTHER, SPOOFED) == f"anonymous@{OTHER}"
    assert user_of(base, GATE, user="in the body") == "in the body"
    assert user_of(base, GATE, NAMED, SHARED) == "acme"
    assert user_of(base, OTHER, NAMED, SHARED, user="in the body") == "in the body"
    for header, _ in (NAMED, SHARED):
        twice = explained(base, GATE, NAMED, SHARED, (header, "mallory"))
        assert (twice.status_code, twice.json()["error"]["param"]) == (400, header)


async def test_over_grpc_it_is_the_peer_that_is_trusted(front: dict[str, str]) -> None:
    async with grpc.aio.insecure_channel(front["grpc"]) as channel:
        stub = Stub(channel)

        async def user(*metadata: tuple[str, str], **options: str) -> str:
            asked = ExplainRequest(call=Call(options=CallOptions(**options)), model=MODEL)
            return str((await stub.Explain(asked, metadata=metadata)).tenant.user)

        assert await user(NAMED, user="in the options") == "alice@example.com"
        assert await user(NAMED, SHARED, tenant="in the options") == "acme"
        assert await user(NAMED, tenant="in the options") == "in the options"
        assert await user(SPOOFED) == "anonymous@9.9.9.9"
        assert await user(("x-forwarded-for", "6.6.6.6, " * 500 + "9.9.9.9")) == "anonymous@9.9.9.9"
        assert await user() == f"anonymous@{GATE}"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await user(NAMED, ("x-lexora-user", "mallory"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError, match="x-lexora-tenant is there more than once"):
            await user(SHARED, ("x-lexora-tenant", "mallory"))


@pytest.mark.parametrize("way", WAYS)
async def test_forty_calls_at_once_of_a_new_team_are_served(front: dict[str, str], way: str) -> None:
    async with load.client(front[way]) as one:
        answers = await asyncio.gather(*(one.post(CHAT, HI) for _ in range(40)))
    assert {answer.status for answer in answers} == {200}
