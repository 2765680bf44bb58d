"""A gateway whose store fails in every way: calls go on, it says why, and it shares again by itself."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.load import chat
from tests.support.servers import Gateway, Simulator, base_config, plain
from tests.support.valkey import ValkeyProcess
from tests.unit.docs.pages import page

MODEL = "qwen3-32b"
SECRET = "pass-word-of-the-store"
# The rights that the manual gives to the store's user.
RIGHTS = re.findall(r"ACL SETUSER gateway on >PASSWORD (.*)", page("docs/operations.md").text)[0].split()
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    with ValkeyProcess(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(sim: Simulator, server: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    sign_up(server)
    config = base_config(main={"url": sim.url, "models": [MODEL]})
    config["rate_limit"] = {"enabled": True}
    config["state"] = {"url": f"valkey://gateway@127.0.0.1:{server.port}", "password_env": "STORE_PASSWORD"}
    config["state"]["timeout"] = 0.5  # a busy machine is no fault of the store
    with Gateway(config, tmp_path_factory.mktemp("gateway"), env={"STORE_PASSWORD": SECRET}) as process:
        yield process
    assert SECRET not in process.output


class Callers:
    """Calls one after the other, all the time; `failed` are the answers that were not 200."""

    def __init__(self, gateway: Gateway) -> None:
        self._url, self._end = f"{gateway.http}{CHAT}", threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.calls, self.failed = 0, list[str]()

    def __enter__(self) -> "Callers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(verify=False) as client:
            while not self._end.is_set():
                answer = client.post(self._url, json=chat(MODEL, 1), timeout=10)
                self.calls += 1
                if answer.status_code != 200:
                    self.failed.append(answer.text)


@dataclass(frozen=True)
class Fault:
    """What is done to the store, what the gateway says then, and how it is undone."""

    name: str
    do: Callable[[ValkeyProcess], Any]
    reason: str
    undo: Callable[[ValkeyProcess], Any]


def lose_connections(server: ValkeyProcess) -> None:
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def another_password(server: ValkeyProcess) -> None:
    server.command("ACL", "SETUSER", "gateway", "resetpass", ">another")
    lose_connections(server)


def restart_slowly(server: ValkeyProcess) -> None:
    """With data that take a while to be read."""
    with server.client() as client:
        for number in range(150):
            client.set(f"filling:{number}", "x" * 2000)
        client.save()
    server.kill()
    server.start(**{"key-load-delay": "10000", "loading-process-events-interval-bytes": "1024"})
    sign_up(server)


def sign_up(server: ValkeyProcess) -> None:
    """A restarted one has lost its users; while it reads its data it takes no new ones."""
    end = time.monotonic() + 20
    while True:
        try:
            server.command("ACL", "SETUSER", "gateway", "reset", "on", f">{SECRET}", *RIGHTS)
        except Exception:
            assert time.monotonic() < end
            time.sleep(0.02)
        else:
            return


def restart(server: ValkeyProcess) -> None:
    server.start(**{"key-load-delay": "0"})
    sign_up(server)


FAULTS = (
    Fault("stopped", ValkeyProcess.stop, "no answer within", ValkeyProcess.go_on),
    Fault("killed", ValkeyProcess.kill, "cannot be reached: Connection refused", restart),
    Fault(
        "password",
        another_password,
        "refuses the user or the password",
        lambda server: server.command("ACL", "SETUSER", "gateway", "resetpass", f">{SECRET}"),
    ),
    Fault(
        "rights",
        lambda server: server.command("ACL", "SETUSER", "gateway", "-@write"),
        "does not let its user do this (ACL",
        sign_up,
    ),
    Fault(
        "memory",
        lambda server: server.command("CONFIG", "SET", "maxmemory", "1"),
        "is out of memory",
        lambda server: server.command("CONFIG", "SET", "maxmemory", "0"),
    ),
    Fault(
        "replica",
        lambda server: server.command("REPLICAOF", "127.0.0.1", "1"),
        "is a read-only replica",
        lambda server: server.command("REPLICAOF", "NO", "ONE"),
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_calls_go_on_and_it_shares_again_by_itself(gateway: Gateway, server: ValkeyProcess, fault: Fault) -> None:
    until_shared(gateway)
    lines = len(gateway.lines)
    with Callers(gateway) as callers:
        fault.do(server)
        try:
            degraded = until(lambda: None if (found := health(gateway))["state"]["shared"] else found)
            before = callers.calls
            until(lambda: fault.reason in health(gateway)["state"]["reason"])
            until(lambda: callers.calls > before + 20)
            assert degraded["status"] == "degraded"
            assert httpx.get(f"{gateway.http}/health/ready", verify=False).status_code == 200
            assert gateway.metric("lexora_state_shared") == 0
        finally:
            fault.undo(server)
        until_shared(gateway)
    assert callers.failed == []
    assert gateway.metric("lexora_state_shared") == 1
    said = until(lambda: said if len(said := state_lines(gateway, lines)) > 1 else None)
    assert [line.split("state_")[1].split()[0] for line in said] == ["degraded", "shared"]
    assert f"127.0.0.1:{server.port}" in said[0]


@pytest.mark.parametrize("what", ["FLUSHALL", "FUNCTION FLUSH", "SCRIPT FLUSH", "CLIENT KILL TYPE pubsub"])
def test_what_is_lost_there_is_made_again_without_a_word(gateway: Gateway, server: ValkeyProcess, what: str) -> None:
    until_shared(gateway)
    lines, failed = len(gateway.lines), gateway.metric("lexora_state_exchanges_total", outcome="failed")
    server.command(*what.split())
    answered = gateway.metric("lexora_state_exchanges_total", outcome="answered")
    until(lambda: gateway.metric("lexora_state_exchanges_total", outcome="answered") > answered + 2)
    assert health(gateway)["state"] == {"shared": True, "reason": "", "replicas": 1}
    assert gateway.metric("lexora_state_exchanges_total", outcome="failed") == failed
    assert state_lines(gateway, lines) == []


def test_a_store_that_reads_its_data_is_waited_for(gateway: Gateway, server: ValkeyProcess) -> None:
    until_shared(gateway)
    with Callers(gateway) as callers:
        loading = threading.Thread(target=restart_slowly, args=(server,))
        loading.start()
        until(lambda: "is reading its data from disk" in health(gateway)["state"]["reason"])
        loading.join()
        until_shared(gateway)
    assert callers.failed == []
    server.command("FLUSHALL")


def test_it_leaves_the_store_at_its_end(sim: Simulator, server: ValkeyProcess, tmp_path: Path) -> None:
    config = base_config(main={"url": sim.url, "models": [MODEL]})
    config["state"] = {"url": server.url, "namespace": "other"}
    with Gateway(config, tmp_path) as one:
        assert server.command("HLEN", "{lexora:other}:v1:members") == 3
        assert one.stop() == 0
    assert server.command("HLEN", "{lexora:other}:v1:members") == 2
    assert 0 < int(str(server.command("TTL", "{lexora:other}:v1:members"))) <= 86400


def test_it_starts_and_serves_while_the_store_is_gone(sim: Simulator, tmp_path: Path) -> None:
    config = base_config(main={"url": sim.url, "models": [MODEL]})
    config["state"] = {"url": "valkey://127.0.0.1:1"}
    with Gateway(config, tmp_path) as one:
        assert httpx.post(f"{one.http}{CHAT}", json=chat(MODEL, 1), verify=False).status_code == 200
        assert health(one)["state"]["shared"] is False
        one.wait_for("state_degraded.*the store cannot be reached: Connection refused")


def health(gateway: Gateway) -> dict[str, Any]:
    return dict(httpx.get(f"{gateway.http}/health", verify=False).json())


def state_lines(gateway: Gateway, since: int) -> list[str]:
    return [plain(line) for line in gateway.lines[since:] if "state_" in line]


def until_shared(gateway: Gateway) -> None:
    until(lambda: health(gateway)["state"]["shared"])


def until(true: Callable[[], Any], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found
