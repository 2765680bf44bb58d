"""The catalogue is exactly what can be asked, and says of each model how its backend is now."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from lexora.v1.models_pb2 import ListModelsRequest
from lexora.v1.router_pb2_grpc import RouterServiceStub
from tests.support import wire
from tests.support.engine import ScriptedEngine
from tests.support.raw_server import reply
from tests.support.servers import Gateway, base_config

CHAT = "/v1/chat/completions"
TTL_SECONDS = 2


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, ScriptedEngine]]:
    with ExitStack() as stack:
        names = {"main": ["alpha", "served"], "one": ["pair"], "two": ["pair"]}
        yield {name: stack.enter_context(ScriptedEngine(*models)) for name, models in names.items()}


@pytest.fixture(scope="module")
def gateway(engines: dict[str, ScriptedEngine], folder: Path) -> Iterator[Gateway]:
    alpha = {"name": "alpha", "capabilities": ["code", "analysis"], "description": "The first.", "max_model_len": 4096}
    url = {name: engine.url for name, engine in engines.items()}
    config = base_config(main={"url": url["main"], "models": [alpha]}, pair={"urls": [url["one"], url["two"]]})
    del config["routing"]["default_backend"]
    config["routing"] |= {"aliases": {"fast": "alpha", "dangling": "nobody"}, "default_model_for_unknown_task": "alpha"}
    config["catalogue"] = {"ttl": TTL_SECONDS, "timeout": 1}
    with Gateway(config, folder) as process:
        yield process


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.http, timeout=10, verify=False) as client:
        wire.wait_until(lambda: {"alpha", "served", "fast", "pair"} == set(models(client)), "the listings")
        wire.wait_until(lambda: statuses(client) == {"healthy"}, "the first probes")
        yield client


def catalogue(http: httpx.Client) -> dict[str, Any]:
    return dict(http.get("/v1/models/capabilities").raise_for_status().json())


def models(http: httpx.Client) -> dict[str, dict[str, Any]]:
    return {model["id"]: model for model in catalogue(http)["models"]}


def statuses(http: httpx.Client) -> set[str]:
    return {model["status"] for model in models(http).values()}


def ask(http: httpx.Client, model: str) -> httpx.Response:
    return http.post(CHAT, json={"model": model, "messages": [{"role": "user", "content": "hi"}]})


def listing(*names: str) -> bytes:
    return reply(json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]}).encode())


def test_every_model_is_told_with_all_that_is_known_of_it(http: httpx.Client) -> None:
    told = catalogue(http)
    alpha = {
        "id": "alpha",
        "backend": "main",
        "backend_type": "vllm",
        "capabilities": ["code", "analysis"],
        "description": "The first.",
        "max_model_len": 4096,
        "status": "healthy",
    }
    found = {"capabilities": ["general"], "description": "", "max_model_len": None}
    assert told == {
        "models": [
            alpha,
            alpha | {"id": "fast"},
            alpha | found | {"id": "served"},
            alpha | found | {"id": "pair", "backend": "pair"},
        ],
        "available_capabilities": ["analysis", "code"],
        "default_model_for_unknown_task": "alpha",
    }


def test_what_is_listed_can_be_asked_and_nothing_else(http: httpx.Client, gateway: Gateway) -> None:
    for name, model in models(http).items():
        assert ask(http, name).headers["x-lexora-backend"] == model["backend"]
    for name in ("dangling", "nobody", "Alpha", ""):
        assert ask(http, name).status_code in (400, 404), name
    with grpc.insecure_channel(gateway.grpc) as channel:
        told = RouterServiceStub(channel).ListModels(ListModelsRequest(), timeout=10)
    assert {model.id: model.backend for model in told.models} == {name: m["backend"] for name, m in models(http).items()}
    assert (list(told.available_capabilities), told.default_model_for_unknown_task) == (["analysis", "code"], "alpha")


def test_the_status_follows_the_endpoints(http: httpx.Client, engines: dict[str, ScriptedEngine]) -> None:
    one, two = engines["one"], engines["two"]
    well, ill = one.pages["/health"], reply(b"", status="503 Service Unavailable")

    def wait_for(status: str) -> None:
        wire.wait_until(lambda: models(http)["pair"]["status"] == status, f"pair to be {status}")
        assert models(http)["alpha"]["status"] == "healthy"

    try:
        one.pages["/health"] = ill
        wait_for("degraded")
        two.pages["/health"] = ill
        wait_for("unhealthy")
    finally:
        one.pages["/health"] = two.pages["/health"] = well
    wait_for("healthy")


def test_a_model_that_its_engine_no_longer_lists_is_gone(http: httpx.Client, engines: dict[str, ScriptedEngine]) -> None:
    main = engines["main"]
    before = main.pages["/v1/models"]
    try:
        main.pages["/v1/models"] = listing("alpha", "brand-new")
        wire.wait_until(lambda: set(models(http)) == {"alpha", "fast", "brand-new", "pair"}, "the new listing")
        assert (ask(http, "served").status_code, ask(http, "brand-new").status_code) == (404, 200)
        main.pages["/v1/models"] = listing()
        wire.wait_until(lambda: set(models(http)) == {"alpha", "fast", "pair"}, "the empty listing")
    finally:
        main.pages["/v1/models"] = before
