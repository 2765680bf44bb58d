"""What is for operators: which scope opens it, who needs no credentials for it, and ports of its own."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lexora.v1.explain_pb2 import ExplainRequest
from lexora.v1.health_pb2 import HealthRequest
from lexora.v1.models_pb2 import ListModelsRequest
from lexora.v1.principal_pb2 import SCOPE_ADMIN, SCOPE_OBSERVE, GetPrincipalRequest
from lexora.v1.recent_calls_pb2 import ListRecentCallsRequest
from lexora.v1.reload_pb2 import ReloadRequest
from lexora.v1.stats_pb2 import GetStatsRequest
from lexora_contract.access import Scope
from lexora_router.access.key_format import NewKey
from tests.support.keys import add_key, change_key
from tests.support.process import Process
from tests.support.queueing import CHAT, MODEL, Stub
from tests.support.servers import LEXORA, Gateway, Simulator, calm_config, plain, write_config
from tests.support.wire import wait_until

HI = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
OPEN = ("/", "/health", "/health/live", "/health/ready", "/docs", "/openapi.json", "/ui/", "/ui/main.js")
OBSERVED = ("/stats", "/stats/recent", "/metrics", "/ui/state")
QUESTIONS: dict[str, Any] = {
    "GetStats": GetStatsRequest(),
    "ListRecentCalls": ListRecentCallsRequest(),
    "Explain": ExplainRequest(),
    "Reload": ReloadRequest(),
}


@dataclass
class Keys:
    """A key for each scope alone, and none."""

    file: Path
    call: NewKey
    observe: NewKey
    admin: NewKey

    def headers(self, name: str) -> dict[str, str]:
        return {} if name == "none" else {"authorization": f"Bearer {getattr(self, name).text}"}


@pytest.fixture(scope="module")
def keys(folder: Path) -> Keys:
    file = folder / "keys.jsonl"
    return Keys(file, *(add_key(file, scopes=(scope,)) for scope in (Scope.CALL, Scope.OBSERVE, Scope.ADMIN)))


def config_of(sim: Simulator, keys: Keys, **server: Any) -> dict[str, Any]:
    config = calm_config(main={"url": sim.url, "models": [MODEL]})
    config["auth"] = {"mode": "keys", "keys_file": str(keys.file)}
    config["server"] |= server
    return config


@pytest.fixture(scope="module")
def gateway(sim: Simulator, folder: Path, keys: Keys) -> Iterator[Gateway]:
    with Gateway(config_of(sim, keys), folder) as process:
        yield process


def status(url: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> int:
    return httpx.get(url + path, headers=headers or {}, verify=False, **options).status_code


def code(target: str, rpc: str, request: Any, headers: dict[str, str] | None = None) -> grpc.StatusCode:
    with grpc.insecure_channel(target) as channel:
        try:
            getattr(Stub(channel), rpc)(request, metadata=tuple((headers or {}).items()), timeout=10)
        except grpc.RpcError as error:
            found: grpc.StatusCode = error.code()  # type: ignore[attr-defined]  # a client's error is a Call
            return found
    return grpc.StatusCode.OK


def test_each_scope_opens_what_is_its_own(gateway: Gateway, keys: Keys) -> None:
    for name in ("none", "call", "observe", "admin"):
        headers = keys.headers(name)
        assert {path: status(gateway.http, path, headers) for path in OPEN} == dict.fromkeys(OPEN, 200), name
        wanted = {"none": 401, "call": 403, "observe": 200, "admin": 403}[name]
        assert {path: status(gateway.http, path, headers) for path in OBSERVED} == dict.fromkeys(OBSERVED, wanted), name
        assert status(gateway.http, "/v1/models", headers) == {"none": 401, "call": 200}.get(name, 403)
        observed = {"none": grpc.StatusCode.UNAUTHENTICATED, "observe": grpc.StatusCode.OK}
        for rpc in ("GetStats", "ListRecentCalls"):
            assert code(gateway.grpc, rpc, QUESTIONS[rpc], headers) is observed.get(name, grpc.StatusCode.PERMISSION_DENIED)
        administered = {"none": grpc.StatusCode.UNAUTHENTICATED, "admin": grpc.StatusCode.OK}
        found = code(gateway.grpc, "Reload", ReloadRequest(), headers)
        assert found is administered.get(name, grpc.StatusCode.PERMISSION_DENIED), name
        assert code(gateway.grpc, "Health", HealthRequest(), headers) is grpc.StatusCode.OK


def test_a_revoked_key_scrapes_no_more(gateway: Gateway, keys: Keys) -> None:
    from datetime import UTC, datetime

    scraper = add_key(keys.file, scopes=(Scope.OBSERVE,))
    headers = {"authorization": f"Bearer {scraper.text}"}
    wait_until(lambda: status(gateway.http, "/metrics", headers) == 200, "the new key")
    change_key(keys.file, scraper, revoked=datetime.now(UTC))
    wait_until(lambda: status(gateway.http, "/metrics", headers) == 401, "its end")


def channelz_code(target: str) -> grpc.StatusCode:
    with grpc.insecure_channel(target) as channel:
        try:
            channelz_pb2_grpc.ChannelzStub(channel).GetServers(channelz_pb2.GetServersRequest(), timeout=10)
        except grpc.RpcError as error:
            found: grpc.StatusCode = error.code()
            return found
    return grpc.StatusCode.OK


def reflected(target: str) -> set[str] | grpc.StatusCode:
    """The services that reflection lists."""
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    with grpc.insecure_channel(target) as channel:
        try:
            (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked, timeout=10)
        except grpc.RpcError as error:
            found: grpc.StatusCode = error.code()
            return found
    return {service.name.rpartition(".")[2] for service in answer.list_services_response.service}


def test_channelz_is_off_where_credentials_are_asked_for(gateway: Gateway) -> None:
    assert channelz_code(gateway.grpc) is grpc.StatusCode.UNIMPLEMENTED
    assert reflected(gateway.grpc) == {"RouterService", "AdminService", "Health", "ServerReflection"}


@pytest.fixture(scope="module")
def apart(sim: Simulator, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Operators have ports of their own, and need no credentials where they come from 127.0.2.0/24."""
    config = config_of(sim, keys, admin_port=0, admin_grpc_port=0, admin_host="127.0.0.1")
    config["admin"] = {"allow": ["127.0.2.0/24"]}
    with Gateway(config, tmp_path_factory.mktemp("apart")) as process:
        process.headers = keys.headers("observe")
        yield process


def test_ports_of_their_own(apart: Gateway, keys: Keys) -> None:
    everything = keys.headers("observe")
    for path in OBSERVED:
        moved = httpx.get(apart.http + path, headers=everything, verify=False)
        assert (moved.status_code, "server.admin_port" in moved.json()["error"]["message"]) == (404, True)
        assert status(apart.admin, path, everything) == 200
        assert status(apart.admin, path) == 401
    assert status(apart.http, "/ui/") == 404
    assert status(apart.admin, "/ui/") == 200
    assert status(apart.admin, "/health") == 200
    called = httpx.post(apart.admin + CHAT, json=HI, headers=keys.headers("call"), verify=False)
    assert called.status_code == 404
    assert httpx.post(apart.http + CHAT, json=HI, headers=keys.headers("call"), verify=False).status_code == 200
    assert "metrics" not in httpx.get(apart.http, verify=False).json()
    assert httpx.get(apart.http, headers={"accept": "text/html"}, verify=False).headers["location"] == "docs"
    for rpc, request in QUESTIONS.items():
        assert code(apart.grpc, rpc, request, keys.headers("admin")) is grpc.StatusCode.UNIMPLEMENTED
    with grpc.insecure_channel(apart.grpc) as channel, pytest.raises(grpc.RpcError) as moved_rpc:
        Stub(channel).GetStats(GetStatsRequest(), timeout=10)
    assert "server.admin_grpc_port" in str(moved_rpc.value)
    assert code(apart.admin_grpc, "GetStats", GetStatsRequest(), everything) is grpc.StatusCode.OK
    assert code(apart.admin_grpc, "Reload", ReloadRequest(), keys.headers("admin")) is grpc.StatusCode.OK
    assert code(apart.admin_grpc, "Reload", ReloadRequest()) is grpc.StatusCode.UNAUTHENTICATED
    assert code(apart.grpc, "ListModels", ListModelsRequest(), keys.headers("call")) is grpc.StatusCode.OK
    assert "AdminService" not in reflected(apart.grpc)  # type: ignore[operator]  # a set, as it is on
    assert "AdminService" in reflected(apart.admin_grpc)  # type: ignore[operator]
    assert channelz_code(apart.grpc) is grpc.StatusCode.UNIMPLEMENTED
    assert channelz_code(apart.admin_grpc) is grpc.StatusCode.OK
    assert apart.metric("lexora_build_info") == 1


def test_an_allowed_network_needs_no_credentials_to_observe_and_administer(apart: Gateway, keys: Keys) -> None:
    def asked(path: str, sender: str, **headers: str) -> int:
        transport = httpx.HTTPTransport(local_address=sender, verify=False)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with httpx.Client(transport=transport) as client:
            return client.get(apart.admin + path, headers=named).status_code

    for path in OBSERVED:
        assert asked(path, "127.0.2.9") == 200
        assert asked(path, "127.0.3.9") == 401
    # It says where it comes from, and is believed as a trusted proxy is: both ways.
    assert asked("/stats", "127.0.3.9", x_forwarded_for="127.0.2.1") == 200
    assert asked("/stats", "127.0.2.9", x_forwarded_for="203.0.113.7") == 401
    # What it shows goes before where it is.
    assert asked("/stats", "127.0.2.9", x_api_key=keys.call.text) == 403
    assert asked("/stats", "127.0.2.9", x_api_key="sk-lx-wrong") == 401
    # Where a browser is says nothing of the page that it shows: one of another origin needs credentials.
    assert asked("/stats", "127.0.2.9", origin="https://evil.example") == 401
    # And it may not call.
    assert asked("/v1/models", "127.0.2.9") == 401


async def test_an_allowed_network_over_grpc(sim: Simulator, keys: Keys, tmp_path: Path) -> None:
    config = config_of(sim, keys, trusted_proxies=["10.0.0.0/8"], reflection=False, channelz=True)
    config["admin"] = {"allow": ["127.0.0.1/32"]}
    with Gateway(config, tmp_path) as gateway:
        async with grpc.aio.insecure_channel(gateway.grpc) as channel:
            stub = Stub(channel)
            await stub.GetStats(GetStatsRequest())
            await stub.Reload(ReloadRequest())
            found = await stub.GetPrincipal(GetPrincipalRequest())
            assert (found.name, found.tenant, list(found.scopes)) == ("admin.allow", "", [SCOPE_OBSERVE, SCOPE_ADMIN])
            for forwarded in ("127.0.0.1", "203.0.113.7"):  # by a proxy that is not believed: the address is the proxy's
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.GetStats(GetStatsRequest(), metadata=(("x-forwarded-for", forwarded),))
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ListModels(ListModelsRequest())
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await asyncio.to_thread(reflected, gateway.grpc) is grpc.StatusCode.UNIMPLEMENTED
        assert await asyncio.to_thread(channelz_code, gateway.grpc) is grpc.StatusCode.OK


def test_a_router_and_a_facade_of_their_own(sim: Simulator, keys: Keys, tmp_path: Path) -> None:
    config = config_of(sim, keys, admin_grpc_port=0)
    file = write_config(config, tmp_path)
    with Process([*LEXORA, "router", "--config", str(file)]) as router:
        line = plain(router.wait_ready(r".*\bserving\b.*").group(0))
        parts = dict(part.split("=", 1) for part in line.split() if "=" in part)
        metrics = parts["metrics"]
        assert status(metrics, "") == 401
        assert status(metrics, "", keys.headers("call")) == 403
        assert status(metrics, "", keys.headers("observe")) == 200
        assert code(parts["grpc"], "GetStats", GetStatsRequest(), keys.headers("observe")) is grpc.StatusCode.UNIMPLEMENTED
        (tmp_path / "facade").mkdir()
        own = write_config({"server": {"host": "127.0.0.1", "port": 0, "admin_port": 0}}, tmp_path / "facade")
        with Process([*LEXORA, "gateway", "--router", parts["admin_grpc"], "--config", str(own)]) as facade:
            seen = plain(facade.wait_ready(r".*\bserving\b.*").group(0))
            ports = dict(part.split("=", 1) for part in seen.split() if "=" in part)
            for path in OBSERVED:
                assert status(ports["http"], path, keys.headers("observe")) == 404
                assert status(ports["admin"], path, keys.headers("observe")) == 200, path
                assert status(ports["admin"], path) == 401
            # The page's sessions are the facade's, and its router says each time whether the key holds.
            page = {"x-lexora-ui": "1"}
            with httpx.Client(base_url=ports["admin"], verify=False, headers=page) as browser:
                assert browser.post("/ui/sign-in", json={"key": keys.call.text}).status_code == 403
                assert browser.post("/ui/sign-in", json={"key": keys.observe.text}).status_code == 204
                assert browser.get("/ui/state").json()["caller"]["session"] is True
            router.kill()
            # Its own metrics say that the router is lost: by its configuration no credentials are asked for.
            wait_until(lambda: status(ports["admin"], "/metrics") == 200, "metrics of the facade alone")
            assert status(ports["admin"], "/stats") == 503
