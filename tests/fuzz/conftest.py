"""Gateways in front of a simulated engine, which all cases share, so that what one case leaves behind is seen by the others."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from hypothesis import strategies as st

from tests.support.keys import ALL, add_key
from tests.support.process import Process
from tests.support.servers import Facade, Gateway, Simulator, calm_config
from tests.support.wire import wait_until

MODEL = "qwen3-32b"
# Given back late, or kept for the next call: arenas of the allocator, connections to engines.
SPARE_BYTES = 64 * 2**20
SPARE_FILES = 24
LEAKED = re.compile(r'Traceback|File \\?"|\.py\b|site-packages|Exception\b')


@dataclass
class Fuzzed:
    """A gateway, and the credential of each kind of caller. `http` is that of its facade, which may be another process."""

    gateway: Gateway
    http: str
    facade: Process
    secret: str
    shown: dict[str, str]

    def headers(self, credential: str) -> dict[str, str]:
        shown = self.shown[credential]
        return {"authorization": f"Bearer {shown}"} if shown else {}

    @property
    def credentials(self) -> st.SearchStrategy[str]:
        """Mostly the good one, where there is one."""
        return st.sampled_from([*self.shown, next(iter(self.shown))])

    def settled(self) -> None:
        """No call is under way, and the process lives."""
        for process in (self.gateway, self.facade):
            assert process.alive, process.output[-4000:]
        headers = {"authorization": f"Bearer {self.secret}"} if self.secret else {}

        def active() -> int:
            stats = httpx.get(f"{self.http}/stats", headers=headers, verify=False).raise_for_status().json()
            return int(stats["active_requests"]) + sum(stats["in_flight"].values()) + sum(stats["queue_depth"].values())

        wait_until(lambda: active() == 0, "no call under way", 20)

    def open_files(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self._pids)

    def resident(self) -> int:
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids)
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def _pids(self) -> set[int]:
        return {self.gateway.pid, self.facade.pid}


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    with Simulator("--embedding-model", "embed-small", "--itl-ms", "0", "--ttft-ms", "0", model=MODEL) as simulator:
        yield simulator


@pytest.fixture(scope="module", params=["off", "keys"])  # and "apart": keys, at a facade in a process of its own
def fuzzed(request: pytest.FixtureRequest, engine: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzzed")
    upstream = f"sk-upstream-{secrets.token_hex(16)}"
    main = {"url": engine.url, "models": [MODEL, "embed-small"], "api_key_env": "FUZZ_UPSTREAM_KEY"}
    config = calm_config(main=main)
    shown, secret = {"none": ""}, ""
    if request.param != "off":
        file = folder / "keys.jsonl"
        good = add_key(file, scopes=ALL, name="fuzz").text
        config["auth"] = {"mode": "keys", "keys_file": str(file)}
        shown, secret = {"good": good, "bad": good[:-4] + "zzzz", "none": ""}, good
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(Gateway(config, folder, env={"FUZZ_UPSTREAM_KEY": upstream}))
        facade = stack.enter_context(Facade(gateway)) if request.param == "apart" else gateway
        fuzzed = Fuzzed(gateway, facade.http, facade, secret, shown)
        httpx.get(f"{fuzzed.http}/openapi.json", verify=False)
        memory, files = fuzzed.resident(), fuzzed.open_files()
        engine.clear()
        yield fuzzed
        fuzzed.settled()
        assert engine.posts(), "no case came as far as the engine"
        output = gateway.output + facade.output
        assert "Traceback" not in output, output[output.index("Traceback") - 2000 :][:6000]
        assert upstream not in output
        assert not secret or secret not in output
        wait_until(lambda: fuzzed.open_files() <= files + SPARE_FILES, "descriptors are closed", 20)
        wait_until(lambda: fuzzed.resident() <= memory + SPARE_BYTES, "memory is given back", 20)
