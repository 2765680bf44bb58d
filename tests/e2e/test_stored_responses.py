"""A stored response is asked of the engine that made it, by the OpenAI client and by raw requests."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from tests.e2e.conftest import MODEL
from tests.support import wire
from tests.support.process import Process
from tests.support.servers import LEXORA, Gateway, Simulator, calm_config, plain

PATH = "/v1/responses/"


@pytest.fixture(scope="module")
def sims() -> Iterator[list[Simulator]]:
    with Simulator(model=MODEL) as one, Simulator(model=MODEL) as two, Simulator(model=MODEL) as three:
        yield [one, two, three]


@pytest.fixture(scope="module")
def gateway(sims: list[Simulator], folder: Path) -> Iterator[Gateway]:
    with Gateway(config(sims), folder) as process:
        yield process


def config(sims: list[Simulator]) -> dict[str, object]:
    main = {"urls": [sim.url for sim in sims], "models": ["mine"], "model_mapping": {"mine": MODEL}}
    return calm_config(main=main)


@pytest.fixture(scope="module", params=["one process", "two processes"])
def base(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of the HTTP side, in the router's process or in one of its own."""
    if request.param == "one process":
        yield gateway.http
        return
    command = [*LEXORA, "gateway", "--router", gateway.grpc, "--config", str(gateway.config_file), "--port", "0"]
    with Process(command) as process:
        ready = plain(process.wait_ready(r".*\bserving\b.*").group(0))
        yield re.search(r'http(?:=|":")(http://[^\s"]+)', ready).group(1)  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def nothing_was_asked(sims: list[Simulator]) -> None:
    for sim in sims:
        sim.clear()


@pytest.fixture
def client(base: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0, timeout=10) as client:
        yield client


def made(client: OpenAI, number: int = 6) -> list[str]:
    """Ids of responses that the engines made, whole and streamed."""
    whole = [client.responses.create(model="mine", input=f"Hi {n}", max_output_tokens=2).id for n in range(number // 2)]
    streams = [client.responses.create(model="mine", input="Hi", max_output_tokens=2, stream=True) for _ in range(number // 2)]
    return whole + [list(stream)[-1].response.id for stream in streams]  # type: ignore[union-attr]


def asked(sims: list[Simulator], identity: str) -> list[tuple[int, str, str]]:
    """Which engine got which request for a response."""
    return [
        (index, request["method"], request["path"])
        for index, sim in enumerate(sims)
        for request in sim.requests()
        if identity in request["path"]
    ]


def test_each_response_is_asked_of_its_engine_alone(client: OpenAI, sims: list[Simulator]) -> None:
    identities = made(client)
    for identity in identities:
        response = client.responses.retrieve(identity)
        assert (response.id, response.model) == (identity, "mine")
        assert list(client.responses.input_items.list(identity))
        with pytest.raises(openai.BadRequestError, match="synchronous"):
            client.responses.cancel(identity)
        client.responses.delete(identity)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(identity)
        found = asked(sims, identity)
        assert len({index for index, _, _ in found}) == 1
        assert [method for _, method, _ in found] == ["GET", "GET", "POST", "DELETE", "GET"]
    assert len({asked(sims, identity)[0][0] for identity in identities}) > 1


def test_a_response_s_events_are_relayed_from_where_they_are_wanted(client: OpenAI, base: str, sims: list[Simulator]) -> None:
    [identity, *_] = made(client, 2)
    stream = wire.exchange(base, wire.request(f"{PATH}{identity}?stream=true&starting_after=-1&x=1", method="GET"))
    assert stream.header("content-type") == "text/event-stream; charset=utf-8"
    assert (stream.body.count(b"event: response.completed"), b'"model":"mine"' in stream.body) == (1, True)


def test_after_a_restart_every_engine_is_asked(client: OpenAI, sims: list[Simulator], tmp_path: Path) -> None:
    identities = made(client)
    with Gateway(config(sims), tmp_path) as other, OpenAI(base_url=f"{other.http}/v1", api_key="none", max_retries=0) as fresh:
        assert [fresh.responses.retrieve(identity).id for identity in identities] == identities
        with pytest.raises(openai.NotFoundError, match="resp_nobody"):
            fresh.responses.retrieve("resp_nobody")
        assert len(asked(sims, "resp_nobody")) == 3
        counted = httpx.get(f"{other.http}/stats", verify=False).json()["by_path"]
        assert counted[PATH + "{response_id}"]["total"] == 7


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", PATH + "resp_1", 405),
        ("PUT", PATH + "resp_1", 405),
        ("GET", PATH + "resp_1/cancel", 405),
        ("GET", PATH + "resp_1/nothing", 404),
        ("GET", PATH + "%2e%2e", 404),
        ("GET", PATH + "a%2f..%2f..%2fmetrics", 404),
        ("GET", PATH + "x" * 300, 404),
    ],
)
def test_nothing_else_is_reached(base: str, sims: list[Simulator], method: str, path: str, status: int) -> None:
    answer = wire.exchange(base, wire.request(path, method=method))
    assert (answer.status, json.loads(answer.body).keys()) == (status, {"error"})
    seen = [request["path"] for sim in sims for request in sim.requests()]
    assert not any(each.startswith("/v1/responses") or each == "/metrics" for each in seen)
