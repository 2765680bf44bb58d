"""Which engine gets a call: names, aliases, defaults, replicas, other protocols; and where the configuration comes from."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import wire
from tests.support.engine import ScriptedEngine, until_closed
from tests.support.process import Process
from tests.support.raw_server import RawRequest, reply
from tests.support.servers import LEXORA, Gateway, calm_config

CHAT = "/v1/chat/completions"
OK = reply(b'{"object":"chat.completion"}')


def chat(model: str | None, **fields: Any) -> dict[str, Any]:
    named = {} if model is None else {"model": model}
    return {**named, "messages": [{"role": "user", "content": "hi"}], **fields}


def hang(connection: socket.socket, _: RawRequest) -> None:
    until_closed(connection)


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, ScriptedEngine]]:
    listed = {"main": ["alpha", "listed"], "second": ["beta-0125", "extra"], "openai": [], "deployments": [], "azure": []}
    with ExitStack() as stack:
        found = {name: stack.enter_context(ScriptedEngine(*models)) for name, models in listed.items()}
        for name in ("one", "two"):
            found[name] = stack.enter_context(ScriptedEngine("paired"))
        found["hung"] = stack.enter_context(ScriptedEngine())
        found["hung"].pages = {"/health": hang, "/v1/models": hang}
        yield found


def fleet(engines: dict[str, ScriptedEngine]) -> dict[str, Any]:
    url = {name: engine.url for name, engine in engines.items()}
    openai = {"type": "openai_compatible"}
    config = calm_config(
        main={"url": url["main"], "models": ["alpha"]},
        second={"url": url["second"] + "/", "models": ["beta"], "model_mapping": {"beta": "beta-0125"}},
        openai={
            "url": url["openai"],
            "models": ["gpt"],
            "api_key_env": "TEST_OPENAI_KEY",
            "api_key": "from-the-file",
            **openai,
        },
        deployments={
            "url": url["deployments"],
            "models": ["gpt-4o"],
            "model_mapping": {"gpt-4o": "my deployment"},
            "api_key": "azure-key",
            "azure": {"api": "deployments", "api_version": "2024-10-21"},
            **openai,
        },
        azure={"url": url["azure"], "models": ["gpt-5"], "api_key": "azure-key", "azure": {"api": "v1"}, **openai},
        pair={"urls": [url["one"], url["two"]], "models": ["paired"]},
        hung={"url": url["hung"], "models": ["stuck"]},
    )
    config["routing"]["aliases"] = {"fast": "alpha", "clever": "beta"}
    config["catalogue"] = {"ttl": 2, "timeout": 0.8}
    return config


@pytest.fixture(scope="module")
def gateway(engines: dict[str, ScriptedEngine], folder: Path) -> Iterator[Gateway]:
    env = {"TEST_OPENAI_KEY": "from-the-environment", "PORT": "1", "API_KEY": "nobody-reads-this", "HOST": "192.0.2.1"}
    with Gateway(fleet(engines), folder, env=env) as process:
        yield process


@pytest.fixture
def http(gateway: Gateway, engines: dict[str, ScriptedEngine]) -> Iterator[httpx.Client]:
    for engine in engines.values():
        engine.requests.clear()
        engine.answer = OK
    with httpx.Client(base_url=gateway.http, timeout=10, verify=False) as client:
        # Every backend but the one that hangs has been asked for its models.
        wire.wait_until(lambda: any(model["id"] == "extra" for model in client.get("/v1/models").json()["data"]), "listings")
        yield client


# -- models


@pytest.mark.parametrize(
    ("asked", "backend", "sent"),
    [
        ("alpha", "main", "alpha"),
        ("listed", "main", "listed"),
        ("beta", "second", "beta-0125"),
        ("extra", "second", "extra"),
        ("fast", "main", "alpha"),
        ("clever", "second", "beta-0125"),
        ("nobody-knows-it", "main", "nobody-knows-it"),
        ("gpt", "openai", "gpt"),
    ],
)
def test_a_model_goes_to_its_backend(
    http: httpx.Client, engines: dict[str, ScriptedEngine], asked: str, backend: str, sent: str
) -> None:
    answer = http.post(CHAT, json=chat(asked, seed=9007199254740993))
    assert answer.headers["x-lexora-backend"] == backend
    assert json.loads(engines[backend].last.body) == chat(sent, seed=9007199254740993)
    assert sum(len(engine.requests) for engine in engines.values()) == 1


@pytest.mark.parametrize(("strict", "default"), [(True, True), (False, False)])
def test_strict_models_and_no_default_backend(
    engines: dict[str, ScriptedEngine], tmp_path: Path, strict: bool, default: bool
) -> None:
    config = calm_config(main={"url": engines["main"].url, "models": ["alpha"]})
    config["routing"]["strict_models"] = strict
    if not default:
        del config["routing"]["default_backend"]
    with Gateway(config, tmp_path) as gateway, httpx.Client(base_url=gateway.http, verify=False) as http:
        assert http.post(CHAT, json=chat("alpha")).status_code == 200
        assert http.post(CHAT, json=chat("listed")).status_code == (404 if strict else 200)
        answer = http.post(CHAT, json=chat("nobody-knows-it"))
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
        names = {model["id"] for model in http.get("/v1/models").json()["data"]}
        assert names == ({"alpha"} if strict else {"alpha", "listed"})


# -- protocols


def test_the_key_comes_from_the_environment(http: httpx.Client, engines: dict[str, ScriptedEngine]) -> None:
    http.post(CHAT, json=chat("gpt"), headers={"authorization": "Bearer the-clients-own"})
    assert engines["openai"].last.header("authorization") == "Bearer from-the-environment"
    assert engines["openai"].last.target == CHAT


def test_azure_deployments(http: httpx.Client, engines: dict[str, ScriptedEngine]) -> None:
    http.post(CHAT, json=chat("gpt-4o"))
    last = engines["deployments"].last
    assert last.target == "/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21"
    assert (last.header("api-key"), last.header("authorization")) == ("azure-key", None)


def test_azure_v1(http: httpx.Client, engines: dict[str, ScriptedEngine]) -> None:
    http.post(CHAT, json=chat("gpt-5"))
    last = engines["azure"].last
    assert last.target == "/openai/v1/chat/completions"
    assert (last.header("api-key"), last.header("authorization")) == ("azure-key", None)
    assert json.loads(last.body)["model"] == "gpt-5"


def test_no_key_is_in_the_log(gateway: Gateway) -> None:
    for secret in ("azure-key", "from-the-environment", "from-the-file", "nobody-reads-this"):
        assert secret not in gateway.output


# -- replicas


def test_replicas_share_the_work_and_the_busy_one_gets_less(
    http: httpx.Client, gateway: Gateway, engines: dict[str, ScriptedEngine]
) -> None:
    one, two = engines["one"], engines["two"]
    for _ in range(40):
        assert http.post(CHAT, json=chat("paired")).status_code == 200
    assert len(one.requests) + len(two.requests) == 40
    assert min(len(one.requests), len(two.requests)) >= 4, "both get work while neither is busy"

    released = threading.Event()

    def slow(connection: socket.socket, _: RawRequest) -> None:
        assert released.wait(10)
        connection.sendall(OK)

    one.answer = slow
    one.requests.clear()
    two.requests.clear()
    busy = wire.request(CHAT, json.dumps(chat("paired")).encode(), headers={"connection": "close"})
    with ExitStack() as stack:
        held = 0
        while not one.requests:  # until there is a call that the first replica holds
            connection = stack.enter_context(wire.connect(gateway.http))
            connection.sendall(busy)
            held += 1
            wire.wait_until(lambda: len(one.requests) + len(two.requests) >= held, "the call to arrive")  # noqa: B023
        before = len(two.requests)
        for _ in range(20):
            assert http.post(CHAT, json=chat("paired")).status_code == 200
        assert (len(one.requests), len(two.requests) - before) == (1, 20), "the one without calls under way gets them all"
        assert gateway.metric("lexora_endpoint_in_flight", endpoint=one.url) == 1
        released.set()
    wire.wait_idle(gateway.http)


# -- one that is not there


# -- configuration


def start(folder: Path, env: dict[str, str], *arguments: str) -> tuple[Process, str]:
    """`lexora serve` without a --config of ours; the process and its HTTP address."""
    process = Process([*LEXORA, "serve", *arguments], env=env, cwd=folder)
    try:
        return process, process.wait_for(r"http=(http://[\d.:]+)").group(1)
    except BaseException:
        process.stop()
        raise


LISTEN = {"LEXORA_SERVER__HOST": "127.0.0.1", "LEXORA_SERVER__PORT": "0", "LEXORA_SERVER__GRPC_PORT": "0"}


def test_one_variable_is_a_whole_configuration(engines: dict[str, ScriptedEngine], tmp_path: Path) -> None:
    main = engines["main"]
    main.answer = OK
    process, http = start(tmp_path, LISTEN | {"LEXORA_VLLM__URL": main.url})
    with process, httpx.Client(base_url=http, verify=False) as client:
        answer = client.post(CHAT, json=chat("whatever"))
        assert (answer.status_code, answer.headers["x-lexora-backend"]) == (200, "vllm")
        assert {model["id"] for model in client.get("/v1/models").json()["data"]} == {"alpha", "listed"}
        client.post("/chat", json={"prompt": "hi"})  # names no model
        assert json.loads(main.last.body)["model"] == "alpha"


def test_a_broken_file_tells_all_its_problems_and_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(
        "server: {prot: 8001, port: high}\n"
        "routing:\n"
        "  default_backend: mian\n"
        "  backends:\n"
        "    main:\n"
        '      url: "http://localhost:8000"\n'
        "      tiemout: 5\n"
        '      api_key: "very-secret"\n'
    )
    with Process([*LEXORA, "serve", "--config", str(file)], cwd=tmp_path) as process:
        assert process.wait() == 1
        told = " ".join(process.output.split())
    for part in ("server.prot", "did you mean port?", "server.port", "routing.backends.main.tiemout", "did you mean timeout?"):
        assert part in told, told
    assert "very-secret" not in told
    assert "Traceback" not in told
    assert "serving" not in told
