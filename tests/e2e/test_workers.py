"""Several workers are one gateway for keys, the page and limits; so are those of `lexora router` and `lexora gateway`."""

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lexora_router.access.key_format import NewKey
from tests.support import wire
from tests.support.keys import ALL, add_key
from tests.support.process import Process
from tests.support.servers import LEXORA, Gateway, Simulator, base_config, metric, plain
from tests.support.workers import workers_of

MODEL = "qwen3-32b"
CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "go on"}]}
BURST = 30


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "1", model=MODEL) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.jsonl"


@pytest.fixture(scope="module")
def operator(keys_file: Path) -> NewKey:
    return add_key(keys_file, name="ops", tenant="ops", scopes=ALL)


@pytest.fixture(scope="module")
def gateway(sim: Simulator, keys_file: Path, operator: NewKey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = base_config(main={"url": sim.url, "models": [MODEL]})
    config["server"]["workers"] = 3
    config["auth"] = {"mode": "keys", "keys_file": str(keys_file)}
    config["rate_limit"] = {"enabled": True, "users": {"limited": {"rate": 0.001, "burst": BURST}}}
    config["logging"] = {"format": "json"}
    with Gateway(config, tmp_path_factory.mktemp("workers")) as process:
        yield process


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def asked(gateway: Gateway, key: str, times: int = 24) -> Counter[int]:
    """Statuses of calls, each on a connection of its own: they go to all workers."""
    return Counter(
        httpx.post(gateway.http + CHAT, json=ASK, headers=bearer(key), verify=False, timeout=30).status_code
        for _ in range(times)
    )


def test_a_key_made_by_one_worker_holds_at_all_and_a_revoked_one_at_none(gateway: Gateway, operator: NewKey) -> None:
    env = {"LEXORA_API_KEY": operator.text}
    with Process([*LEXORA, "keys", "create", "--router", gateway.grpc, "--name", "new", "--tenant", "t"], env=env) as made:
        assert made.wait() == 0, made.output
    key = re.search(r"sk-lx-\S+", made.output).group(0)  # type: ignore[union-attr]
    assert asked(gateway, key) == {200: 24}
    public = key.removeprefix("sk-lx-").split("-")[0].split(".")[0][:12]
    with Process([*LEXORA, "keys", "revoke", public, "--router", gateway.grpc], env=env) as revoked:
        assert revoked.wait() == 0, revoked.output
    assert asked(gateway, key) == {401: 24}
    with Process([*LEXORA, "audit", "--router", gateway.grpc], env=env) as audit:
        assert audit.wait() == 0, audit.output
    assert audit.output.count("key_created") == 1, audit.output
    assert audit.output.count("key_revoked") == 1, audit.output


def test_what_all_workers_see_is_written_down_once(gateway: Gateway, operator: NewKey, keys_file: Path) -> None:
    before = len(gateway.lines)
    key = add_key(keys_file, name="by hand", tenant="t")

    def said(event: str) -> list[str]:
        return [line for line in gateway.lines[before:] if f'"event":"{event}"' in line]

    wire.wait_until(lambda: len(said("keys_read")) >= 3, "the file read by all workers")
    wire.wait_until(lambda: said("key_created"), "the line of the one that writes it down")
    assert asked(gateway, key.text, 12) == {200: 12}
    assert len(said("key_created")) == 1


def test_a_session_of_the_page_is_one_of_all_workers(gateway: Gateway, operator: NewKey) -> None:
    page = {"x-lexora-ui": "1"}
    signed = httpx.post(f"{gateway.http}/ui/sign-in", json={"key": operator.text}, headers=page, verify=False)
    assert signed.status_code == 204
    cookie = signed.headers["set-cookie"].split(";")[0]

    def states() -> Counter[int]:
        found = (httpx.get(f"{gateway.http}/ui/state", headers={"cookie": cookie}, verify=False) for _ in range(12))
        return Counter(answer.status_code for answer in found)

    assert states() == {200: 12}
    # A worker that has just started has the sessions, too.
    workers = workers_of(gateway)
    for worker in workers[:2]:
        os.kill(worker, signal.SIGKILL)
    wire.wait_until(lambda: len(workers_of(gateway)) == 3, "new workers")
    wire.wait_until(lambda: gateway_up(gateway, operator) == 3, "new workers that serve")
    assert states() == {200: 12}
    assert httpx.post(f"{gateway.http}/ui/sign-out", headers={**page, "cookie": cookie}, verify=False).status_code == 204
    assert states() == {401: 12}


def gateway_up(gateway: Gateway, operator: NewKey) -> float:
    """Workers that are in what is scraped; none where the worker that was killed had the connection."""
    try:
        text = httpx.get(f"{gateway.http}/metrics", headers=bearer(operator.text), verify=False).text
    except httpx.TransportError:
        return 0
    return metric(text, "lexora_worker_up")


def test_a_rate_limit_holds_over_all_workers(gateway: Gateway, keys_file: Path) -> None:
    key = add_key(keys_file, name="limited", tenant="limited")
    wire.wait_until(lambda: models_listed(gateway, key), "the key in force at all workers")
    answers = asked(gateway, key.text, 3 * BURST)
    assert answers.keys() == {200, 429}
    assert 0.8 * BURST <= answers[200] <= BURST, answers  # what a worker has leased may be left with it


def models_listed(gateway: Gateway, key: NewKey) -> bool:
    answers = (httpx.get(f"{gateway.http}/v1/models", headers=bearer(key.text), verify=False) for _ in range(12))
    return all(answer.status_code == 200 for answer in answers)


def test_a_router_and_a_facade_of_several_workers_each(sim: Simulator, tmp_path: Path) -> None:
    config: dict[str, Any] = base_config(main={"url": sim.url, "models": [MODEL]})
    config["server"]["workers"] = 2
    file = tmp_path / "lexora_config.yaml"
    file.write_text(yaml.safe_dump(config))
    with Process([*LEXORA, "router", "--config", str(file)]) as router:
        line = plain(router.wait_ready(r".*\bserving\b.*").group(0))
        grpc, metrics = re.search(r"grpc=(\S+)", line), re.search(r"metrics=(\S+)", line)
        assert grpc is not None
        assert metrics is not None
        command = [*LEXORA, "gateway", "--router", grpc.group(1), "--config", str(file)]
        with Process(command) as facade:
            http = re.search(r"http=(\S+)", plain(facade.wait_ready(r".*\bserving\b.*").group(0)))
            assert http is not None
            base = http.group(1)
            answers = [httpx.post(base + CHAT, json=ASK, verify=False).status_code for _ in range(16)]
            assert answers == [200] * 16
            for _ in range(4):
                assert metric(httpx.get(metrics.group(1), verify=False).text, "lexora_requests_total") == 16
                own = httpx.get(f"{base}/metrics", verify=False).text
                assert metric(own, "lexora_worker_up") == 2
                assert metric(own, "process_open_fds", worker="2") > 0
            config["server"]["max_body_bytes"] = 2000
            file.write_text(yaml.safe_dump(config))
            facade.signal(signal.SIGHUP)
            facade.wait_for(r"\brolled\b")
            large = httpx.post(base + CHAT, json=ASK | {"user": "x" * 3000}, verify=False)
            assert large.status_code == 413
            facade.signal(signal.SIGTERM)
            assert facade.wait() == 0
        router.signal(signal.SIGTERM)
        assert router.wait() == 0
