"""Engines that are found while the gateway runs: in a file, in DNS, in Kubernetes. Calls follow them, and problems are said."""

import json
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import wire
from tests.support.dns_server import DnsServer
from tests.support.engine import ScriptedEngine
from tests.support.kube_api import KubeApi, pod
from tests.support.raw_server import reply
from tests.support.servers import LEXORA, Gateway, base_config
from tests.support.tls import Authority

CHAT = "/v1/chat/completions"
SERVICE = "_http._tcp.engines.test"
ANSWER = reply(b'{"object":"chat.completion","model":"m","choices":[]}')
TTL_SECONDS = 1


@dataclass
class Fleet:
    """Two engines, and where they are found."""

    one: ScriptedEngine
    two: ScriptedEngine
    dns: DnsServer
    api: KubeApi
    file: Path
    gateway: Gateway

    def write(self, *engines: ScriptedEngine) -> None:
        """Replace the file of targets."""
        targets = [f"127.0.0.1:{engine.port}" for engine in engines]
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps([{"targets": targets, "labels": {"model": "m"}}, {"targets": ["127.0.0.1:1"]}]))
        fresh.replace(self.file)

    def name(self, *engines: ScriptedEngine) -> None:
        """Have these SRV records."""
        self.dns.say(SERVICE, "SRV", *(f"0 0 {engine.port} here.test." for engine in engines))

    def slices(self, *engines: ScriptedEngine) -> None:
        """Have a slice for each of these: the port is one of the slice."""
        for engine in (self.one, self.two):
            name = f"s{engine.port}"
            if engine in engines:
                self.api.put(name, pod("127.0.0.1"), port=engine.port)
            elif name in self.api.slices:
                self.api.remove(name)

    def stats(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.gateway.http}/stats", verify=False).raise_for_status().json())

    def discovery(self, backend: str) -> dict[str, Any]:
        return dict(self.stats()["discovery"][backend])

    def addresses(self, backend: str) -> list[str]:
        """The endpoints that take calls, as a call would find them."""
        asked = {"model": f"of-{backend}", "messages": []}
        explained = httpx.post(f"{self.gateway.http}{CHAT}", json=asked, headers={"x-lexora-explain": "1"}, verify=False)
        [target] = explained.raise_for_status().json()["targets"]
        return sorted(endpoint["address"] for endpoint in target["endpoints"] if endpoint["eligible"])

    def settle(self, backend: str, *engines: ScriptedEngine) -> None:
        """Wait until calls of a backend go to exactly these."""
        wanted = sorted(engine.url for engine in engines)
        wire.wait_until(lambda: self.addresses(backend) == wanted, f"{backend} at {wanted}", 10)

    def ask(self, backend: str) -> httpx.Response:
        asked = {"model": f"of-{backend}", "messages": [{"role": "user", "content": "hi"}]}
        return httpx.post(f"{self.gateway.http}{CHAT}", json=asked, verify=False, timeout=10)


@pytest.fixture(scope="module")
def fleet(folder: Path) -> Iterator[Fleet]:
    authority = Authority(folder)
    security = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    security.load_cert_chain(*authority.issue("api").paths())
    token = folder / "token"
    token.write_text("t0ken\n")
    with ExitStack() as stack:
        one, two = (stack.enter_context(ScriptedEngine("m")) for _ in range(2))
        one.answer = two.answer = ANSWER
        dns, api = stack.enter_context(DnsServer()), stack.enter_context(KubeApi(security))
        api.token = "t0ken"
        dns.say("here.test", "A", "127.0.0.1")
        often = {"min_interval": 0.1, "max_interval": 0.2, "timeout": 1.0}
        cluster = {
            "service": "vllm",
            "namespace": "prod",
            "server": api.url,
            "token_file": str(token),
            "ca_file": str(authority.ca),
        }
        sources: dict[str, dict[str, Any]] = {
            "file": {"file": str(folder / "engines.json"), "labels": {"model": "m"}},
            "dns": {"srv": SERVICE, "servers": [dns.address], **often},
            "kube": {"kubernetes": cluster, **often},
        }
        config = base_config(**{name: {"discover": found, "models": [f"of-{name}"]} for name, found in sources.items()})
        config["catalogue"] = {"ttl": TTL_SECONDS, "timeout": 1}
        config["health"]["slow_start"] = 0
        config["retry"] = {"max_retries": 0}
        gateway = stack.enter_context(Gateway(config, folder))
        yield Fleet(one, two, dns, api, folder / "engines.json", gateway)


def lexora(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LEXORA, *arguments], check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        ("file", r"has no endpoint: file \S+engines.json \(model=m\) was looked up \d\.\d s ago: cannot be read: No such file"),
        ("dns", rf"has no endpoint: dns {SERVICE} \(SRV\) was looked up \d\.\d s ago: there is no such name \(NXDOMAIN\)"),
        (
            "kube",
            r"has no endpoint: kubernetes service vllm in namespace prod was looked up \d+\.\d s ago: it has no addresses",
        ),
    ],
)
def test_without_an_endpoint_a_call_says_where_was_looked_and_what_came_of_it(fleet: Fleet, backend: str, why: str) -> None:
    answer = fleet.ask(backend)
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    error = answer.json()["error"]
    assert error["code"] == "no_healthy_endpoint"
    assert re.search(why, error["message"]), error
    health = httpx.get(f"{fleet.gateway.http}/health", verify=False)
    assert health.json()["backends"][backend] == "unhealthy"
    assert health.json()["discovery"][backend]["endpoints"] == 0


@pytest.mark.parametrize(("backend", "change"), [("file", Fleet.write), ("dns", Fleet.name), ("kube", Fleet.slices)])
def test_calls_follow_the_endpoints(fleet: Fleet, backend: str, change: Any) -> None:
    change(fleet, fleet.one)
    fleet.settle(backend, fleet.one)
    before = len(fleet.one.requests)
    assert fleet.ask(backend).status_code == 200
    assert len(fleet.one.requests) == before + 1
    change(fleet, fleet.one, fleet.two)
    fleet.settle(backend, fleet.one, fleet.two)
    change(fleet, fleet.two)
    fleet.settle(backend, fleet.two)
    before = len(fleet.two.requests)
    assert [fleet.ask(backend).status_code for _ in range(4)] == [200] * 4
    assert len(fleet.two.requests) == before + 4
    found = fleet.discovery(backend)
    assert (found["endpoints"], found["problem"]) == (1, "")
    assert found["seconds_since_success"] < 60
    assert fleet.gateway.metric("lexora_discovered_endpoints", backend=backend) == 1
    assert abs(time.time() - fleet.gateway.metric("lexora_discovery_last_success_timestamp_seconds", backend=backend)) < 60
    wire.wait_until(
        lambda: not any(fleet.one.url in line for line in _samples(fleet, backend)), "metrics without the one that is gone"
    )


def _samples(fleet: Fleet, backend: str) -> list[str]:
    text = httpx.get(f"{fleet.gateway.http}/metrics", verify=False).text
    return [
        line for line in text.splitlines() if line.startswith("lexora_endpoint_available") and f'backend="{backend}"' in line
    ]


@pytest.mark.parametrize(
    ("backend", "problem"),
    [("file", "is neither JSON nor YAML"), ("dns", "SERVFAIL"), ("kube", "the API server answered 500")],
)
def test_what_was_found_last_holds_while_looks_fail(fleet: Fleet, backend: str, problem: str) -> None:
    fleet.write(fleet.one)
    fleet.name(fleet.one)
    fleet.slices(fleet.one)
    fleet.settle(backend, fleet.one)
    wire.wait_until(lambda: not fleet.discovery(backend)["problem"], "a look that is well", 10)
    failures = fleet.gateway.metric("lexora_discovery_failures_total", backend=backend)
    try:
        fleet.file.write_text('[{"targets": ["127')
        fleet.dns.mood = "servfail"
        fleet.api.status = 500
        fleet.api.drop_watches()
        wire.wait_until(lambda: problem in fleet.discovery(backend)["problem"], problem, 10)
        assert fleet.ask(backend).status_code == 200
        assert fleet.gateway.metric("lexora_discovery_failing", backend=backend) == 1
        assert fleet.gateway.metric("lexora_discovery_failures_total", backend=backend) > failures
        health = httpx.get(f"{fleet.gateway.http}/health", verify=False).json()
        assert health["discovery"][backend]["failing"] is True
        assert health["backends"][backend] == "healthy"
        status = lexora(fleet, "status", "--router", fleet.gateway.grpc)
        assert problem in status.stdout, status.stderr
        explained = lexora(fleet, "explain", "--router", fleet.gateway.grpc, "--model", f"of-{backend}")
        assert problem in explained.stdout, explained.stderr
        check = lexora(fleet, "check", "--config", str(fleet.gateway.config_file))
        assert check.returncode == 2
        assert problem in check.stdout.replace("\n", " ")
    finally:
        fleet.write(fleet.two)
        fleet.dns.mood = "well"
        fleet.api.status = 200
    fleet.name(fleet.two)
    fleet.slices(fleet.two)
    fleet.settle(backend, fleet.two)
    wire.wait_until(lambda: not fleet.discovery(backend)["problem"], "a look that is well", 10)


def test_a_check_looks_once_and_asks_what_it_finds(fleet: Fleet) -> None:
    fleet.write(fleet.one, fleet.two)
    fleet.name(fleet.one)
    fleet.slices(fleet.two)
    check = lexora(fleet, "check", "--config", str(fleet.gateway.config_file), "--json")
    report = json.loads(check.stdout)
    assert {each["backend"]: each["endpoints"] for each in report["discovered"]} == {
        "file": sorted([fleet.one.url, fleet.two.url]),
        "dns": [fleet.one.url],
        "kube": [fleet.two.url],
    }
    assert len(report["endpoints"]) == 4
    assert all(each["healthy"] for each in report["endpoints"]), check.stdout


def test_models_that_engines_load_and_drop_come_and_go_within_the_ttl(fleet: Fleet) -> None:
    """A model is there when each endpoint has it: a call may go to any of them."""
    base = "/v1/models"

    def listed() -> set[str]:
        found = httpx.get(f"{fleet.gateway.http}{base}", verify=False).raise_for_status().json()["data"]
        return {model["id"] for model in found}

    def loads(engine: ScriptedEngine, *models: str) -> None:
        engine.pages[base] = reply(json.dumps({"object": "list", "data": [{"id": model} for model in ("m", *models)]}).encode())

    try:
        fleet.write(fleet.one, fleet.two)
        fleet.settle("file", fleet.one, fleet.two)
        fleet.name()
        fleet.slices()
        fleet.settle("dns")
        fleet.settle("kube")
        loads(fleet.one, "adapter")
        fleet.gateway.wait_for(r"models_differ.*adapter", TTL_SECONDS + 10)
        assert "adapter" not in listed(), "one endpoint of two has it"
        loads(fleet.two, "adapter")
        wire.wait_until(lambda: "adapter" in listed(), "the adapter", TTL_SECONDS + 2)
        loads(fleet.one)
        wire.wait_until(lambda: "adapter" not in listed(), "the adapter is gone", TTL_SECONDS + 2)
    finally:
        loads(fleet.one)
        loads(fleet.two)
