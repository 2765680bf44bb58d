import asyncio
import time
from collections.abc import Sequence
from typing import Any

from tests.support.raw_server import Do, RawServer, Step, reply

from lexora_cli.probe import Finding, probe_all
from lexora_router.config import Config
from lexora_sim import SimSettings, Simulator

MODELS = reply(b'{"object":"list","data":[{"id":"a"},{"id":"b"}]}')
WELL = reply(b"")


async def one(backend: dict[str, Any], **sections: Any) -> Finding:
    config = Config.model_validate({"routing": {"backends": {"main": backend}}, **sections})
    (found,) = await probe_all(config)
    return found


async def against(*scripts: Sequence[Step], **backend: Any) -> Finding:
    async with RawServer(*scripts) as server:
        return await one({"url": server.url, **backend}, health={"timeout": 0.2}, catalogue={"timeout": 0.2})


def advice(found: Finding) -> str:
    assert found.trouble is not None
    return found.trouble.advice


def problem(found: Finding) -> str:
    assert found.trouble is not None
    return found.trouble.problem


async def test_a_live_engine_is_healthy_and_lists_its_models() -> None:
    async with Simulator(SimSettings(port=0, models=("tiny",))) as engine:
        found = await one({"url": engine.url, "models": ["tiny"]})
    assert found.healthy
    assert (found.models, found.missing, found.trouble) == (["tiny"], [], None)
    assert found.latency_ms is not None
    assert found.latency_ms > 0


async def test_configured_models_that_the_engine_lacks_are_named_by_their_mapped_name() -> None:
    found = await against([WELL], [MODELS], models=["a", "c", "d"], model_mapping={"c": "b", "d": "x"})
    assert found.healthy
    assert found.missing == ["x"]


async def test_nothing_listens_there() -> None:
    async with RawServer() as server:
        url = server.url
    found = await one({"url": url})
    assert not found.healthy
    assert found.latency_ms is None
    assert problem(found) == "connection refused: nothing listens there"
    assert "routing.backends.main.url" in advice(found)


async def test_single_backend_mode_names_its_own_section() -> None:
    async with RawServer() as server:
        url = server.url
    (found,) = await probe_all(Config.model_validate({"vllm": {"url": url}}))
    assert "vllm.url" in advice(found)
    assert "routing" not in advice(found)


async def test_a_host_name_that_nobody_knows() -> None:
    found = await one({"url": "http://no-such-host.invalid:8000"}, health={"timeout": 5})
    assert problem(found) == "the host name is unknown"


async def test_an_engine_that_hangs_costs_its_time_limit_once_for_all() -> None:
    async with RawServer(*[[Do.HANG]] * 5) as first, RawServer(*[[Do.HANG]] * 5) as second:
        backends = {str(number): {"url": each.url} for number, each in enumerate([first, second] * 5)}
        config = Config.model_validate({"routing": {"backends": backends}, "health": {"timeout": 0.4}})
        started = time.monotonic()
        found = await probe_all(config)
    assert time.monotonic() - started < 5 * 0.4, "one after the other they take ten times that"
    assert [problem(each) for each in found] == ["no answer within 0.4 s"] * 10


async def test_a_refused_key() -> None:
    for status in ("401 Unauthorized", "403 Forbidden"):
        found = await against([WELL], [reply(b"{}", status=status)])
        assert not found.healthy
        assert "routing.backends.main.api_key_env" in advice(found)


async def test_the_key_is_sent(monkeypatch: Any) -> None:
    monkeypatch.setenv("ENGINE_KEY", "sk-1")
    async with RawServer([WELL], [MODELS]) as server:
        await one({"url": server.url, "api_key_env": "ENGINE_KEY"})
        assert [request.header("authorization") for request in server.requests] == ["Bearer sk-1"] * 2


async def test_something_else_than_vllm() -> None:
    found = await against([reply(b"", status="404 Not Found")])
    assert "openai_compatible" in advice(found)
    found = await against([reply(b"", status="404 Not Found")], type="openai_compatible", health_path="/up")
    assert advice(found) == "set another routing.backends.main.health_path"


async def test_an_anthropic_is_asked_in_its_own_way() -> None:
    async with RawServer([MODELS]) as server:
        found = await one({"url": server.url, "type": "anthropic", "api_key": "sk-ant"})
        [request] = server.requests
    assert (request.target, request.header("x-api-key")) == ("/v1/models?limit=1000", "sk-ant")
    assert found.models == ["a", "b"]


async def test_an_engine_that_is_not_well() -> None:
    found = await against([reply(b"", status="503 Service Unavailable")])
    assert problem(found) == "/health was answered 503"


async def test_a_redirect() -> None:
    found = await against([reply(b"", status="302 Found", headers="location: /x\r\n")])
    assert "final address" in advice(found)


async def test_something_that_does_not_speak_http() -> None:
    found = await against([b"SSH-2.0-x\r\n\r\n", Do.CLOSE])
    assert "HTTP server" in advice(found)


async def test_tls_against_plain_http() -> None:
    async with RawServer([b"HTTP/1.1 400 Bad Request\r\n\r\n", Do.CLOSE]) as server:
        found = await one({"url": server.url.replace("http://", "https://")}, health={"timeout": 0.2})
    assert not found.healthy


async def test_a_ca_file_that_is_not_there() -> None:
    found = await one({"url": "https://127.0.0.1:9", "ca_file": "/no/such/file.pem"})
    assert "ca_file cannot be used" in problem(found)
    assert advice(found) == "correct routing.backends.main.ca_file"


async def test_an_openai_server_is_asked_for_its_models_only() -> None:
    async with RawServer([MODELS]) as server:
        found = await one({"url": server.url, "type": "openai_compatible"})
        assert [request.target for request in server.requests] == ["/v1/models"]
    assert found.models == ["a", "b"]


async def test_an_engine_without_a_list_answers_all_the_same() -> None:
    for listing in (reply(b"{}", status="404 Not Found"), reply(b"<html>"), reply(b'{"data": [1]}')):
        found = await against([WELL], [listing], models=["a"])
        assert found.healthy
        assert (found.models, found.missing) == (None, [])


async def test_replicas_are_asked_one_by_one() -> None:
    async with RawServer([WELL], [MODELS]) as alive, RawServer() as dead:
        pass
    async with RawServer([WELL], [MODELS]) as alive:
        config = Config.model_validate({"routing": {"backends": {"main": {"urls": [alive.url, dead.url]}}}})
        found = await asyncio.wait_for(probe_all(config), 20)
    assert [(each.endpoint, each.healthy) for each in found] == [(alive.url, True), (dead.url, False)]
