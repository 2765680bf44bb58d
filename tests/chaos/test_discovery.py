"""Endpoints come and go under load, by each kind of source, and the sources break now and then: no call fails."""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.conftest import MODEL
from tests.chaos.streams import Load, body, client, stream
from tests.support import wire
from tests.support.dns_server import DnsServer
from tests.support.kube_api import KubeApi, pod
from tests.support.servers import Gateway, Simulator, base_config

SERVICE = "_http._tcp.engines.test"
BACKENDS = ("file", "dns", "kube")
ROUNDS = 8  # two of each way to break
CALLS = 70  # at each backend in a round


@pytest.fixture(scope="module")
def engines() -> Iterator[list[Simulator]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Simulator("--itl-ms", "2", "--max-num-seqs", "1000", model=MODEL)) for _ in range(3)]


class Sources:
    """One file, one name and one Service, which have the same engines."""

    def __init__(self, file: Path, dns: DnsServer, api: KubeApi) -> None:
        self.file, self.dns, self.api = file, dns, api
        dns.say("here.test", "A", "127.0.0.1")

    def have(self, *engines: Simulator) -> None:
        ports = [int(engine.url.rpartition(":")[2]) for engine in engines]
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}" for port in ports]}]))
        fresh.replace(self.file)
        self.dns.say(SERVICE, "SRV", *(f"0 0 {port} here.test." for port in ports))
        for port in ports:
            self.api.put(str(port), pod("127.0.0.1"), port=port)
        for name in set(self.api.slices) - set(map(str, ports)):
            self.api.remove(name)

    def breaks(self, round_: int) -> None:
        """Each source is out of order in some of the rounds, another way each time."""
        self.dns.mood = ("well", "servfail", "well", "silent")[round_ % 4]  # type: ignore[assignment] # one of them
        self.api.status = 500 if round_ % 4 == 1 else 200
        if round_ % 4 in (1, 2):
            self.api.drop_watches()
        if round_ % 4 == 3:
            self.api.forget()
            self.file.write_text(self.file.read_text()[:-5])


@pytest.mark.timeout(150)  # 1,700 streams through a client in Python
async def test_endpoints_come_and_go_under_200_streams(engines: list[Simulator], tmp_path: Path) -> None:
    one, two, three = engines
    with DnsServer() as dns, KubeApi() as api:
        sources = Sources(tmp_path / "engines.json", dns, api)
        sources.have(one, two)
        often = {"min_interval": 0.1, "max_interval": 0.2, "timeout": 0.5}
        config = base_config(
            file={"discover": {"file": str(sources.file)}, "models": [f"{MODEL}-file"]},
            dns={"discover": {"srv": SERVICE, "servers": [dns.address], **often}, "models": [f"{MODEL}-dns"]},
            kube={
                "discover": {"kubernetes": {"service": "vllm", "namespace": "prod", "server": api.url}, **often},
                "models": [f"{MODEL}-kube"],
            },
        )
        for name, backend in config["routing"]["backends"].items():
            backend |= {"model_mapping": {f"{MODEL}-{name}": MODEL}, "max_concurrency": 200}
        config["health"] |= {"slow_start": 0.5, "interval": 0.1}
        with Gateway(config, tmp_path) as gateway:
            loads = [Load(gateway.http, body(f"{MODEL}-{name}", 15), 200 // len(BACKENDS) + 1) for name in BACKENDS]
            sets = itertools.cycle([(two, three), (three,), (one, three), (one,), (one, two, three), (two,)])
            for round_ in range(ROUNDS):
                sources.have(*next(sets))
                sources.breaks(round_)
                before = [len(load.seen) for load in loads]
                for load, seen in zip(loads, before, strict=True):
                    await load.more(seen + CALLS)
            seen = [each for load in loads for each in await load.stop()]
            assert [each for each in seen if not each.whole] == []
            assert len(seen) >= 3 * CALLS * ROUNDS
            await asyncio.to_thread(wire.wait_idle, gateway.http)
            assert all(engine.stats()["max_running"] > 1 for engine in engines), "all three have had calls"
            for backend in BACKENDS:
                assert gateway.metric("lexora_discovery_failures_total", backend=backend) > 0
            assert "Traceback" not in gateway.output


async def test_a_gone_endpoint_ends_its_streams_and_gets_no_others(engines: list[Simulator], tmp_path: Path) -> None:
    one, two, _ = engines
    for engine in engines:
        engine.clear()
    with DnsServer() as dns, KubeApi() as api:
        sources = Sources(tmp_path / "engines.json", dns, api)
        sources.have(one)
        config = base_config(main={"discover": {"file": str(sources.file)}, "models": [MODEL], "max_concurrency": 2})
        with Gateway(config, tmp_path) as gateway:
            async with client(gateway.http) as http:
                long = [asyncio.create_task(stream(http, body(MODEL, 1500))) for _ in range(2)]
                await asyncio.to_thread(wire.wait_until, lambda: one.stats()["running"] == 2, "2 streams")
                waiting = [asyncio.create_task(stream(http, body(MODEL, 2))) for _ in range(4)]
                await asyncio.to_thread(wire.wait_until, lambda: gateway.metric("lexora_queue_depth") == 4, "4 waiting calls")
                sources.have(two)
                assert all(each.whole for each in await asyncio.gather(*waiting)), "those that wait go elsewhere"
                assert one.stats()["running"] == 2
                assert all(each.whole for each in await asyncio.gather(*long)), "those under way end where they are"
            assert (len(one.posts()), len(two.posts())) == (2, 4)
            await asyncio.to_thread(
                wire.wait_until, lambda: one.stats()["connections"] <= 1, "connections of the one that is gone"
            )


async def test_a_reload_and_a_change_of_addresses_at_the_same_time(engines: list[Simulator], tmp_path: Path) -> None:
    """A reload that rebuilds the backend, and one that replaces `urls` by `discover`, lose no endpoint and no call."""
    one, two, three = engines
    with DnsServer() as dns, KubeApi() as api:
        sources = Sources(tmp_path / "engines.json", dns, api)
        sources.have(one, two)
        backend = {"urls": [one.url, two.url], "models": [MODEL], "max_concurrency": 50}
        config = base_config(main=backend)
        with Gateway(config, tmp_path) as gateway:
            load = Load(gateway.http, body(MODEL, 20), 24)
            # The new source cannot be read at first: the endpoints of before hold.
            found = {"file": str(tmp_path / "not-yet.json")}
            for number in range(10):
                config["routing"]["backends"]["main"] = {"discover": found, "models": [MODEL], "max_concurrency": 50 + number}
                gateway.config_file.write_text(json.dumps(config))  # JSON is YAML
                os.kill(gateway.pid, signal.SIGHUP)
                sources.have(*((one, three) if number % 2 else (two, three)))
                await load.more(len(load.seen) + 48)
                if number == 4:
                    found = {"file": str(sources.file)}
            seen = await load.stop()
            assert [each for each in seen if not each.whole] == []
            gateway.wait_for("endpoints_discovered")
            assert gateway.metric("lexora_discovered_endpoints") == 2
            assert "Traceback" not in gateway.output


async def test_streams_of_discovered_engines_go_on_elsewhere(tmp_path: Path) -> None:
    """When the pipeline is built there is no endpoint: whether a stream may go on elsewhere is seen at each call."""
    file = tmp_path / "engines.json"
    config = base_config(main={"discover": {"file": str(file)}, "models": [MODEL]})
    config["failover"] = {"resume": True}
    config["health"]["slow_start"] = 0
    with ExitStack() as stack:
        one, two = (stack.enter_context(Simulator("--itl-ms", "8", model=MODEL)) for _ in range(2))
        gateway = stack.enter_context(Gateway(config, tmp_path))
        file.write_text(json.dumps([{"targets": [engine.url.removeprefix("http://") for engine in (one, two)]}]))
        await asyncio.to_thread(
            wire.wait_until, lambda: gateway.metric("lexora_endpoint_available", backend="main") == 2, "two endpoints"
        )
        async with client(gateway.http) as http:
            streams = [asyncio.create_task(stream(http, body(MODEL, 200, temperature=0))) for _ in range(20)]
            await asyncio.to_thread(
                wire.wait_until, lambda: one.stats()["running"] + two.stats()["running"] == 20, "20 streams"
            )
            os.kill(one.pid, signal.SIGKILL)
            seen = await asyncio.gather(*streams)
        assert [each for each in seen if not each.whole] == []
        assert gateway.metric("lexora_streams_resumed_total") > 0


async def test_slots_hold_over_workers_while_endpoints_come_and_go(engines: list[Simulator], tmp_path: Path) -> None:
    """Each worker looks for itself, and none begins with an endpoint; the slots of each engine are those of both together."""
    one, two, three = engines
    for engine in engines:
        engine.clear()
    file = tmp_path / "engines.json"
    config = base_config(main={"discover": {"file": str(file)}, "models": [MODEL], "max_concurrency": 8})
    config["server"]["workers"] = 2
    config["state"] = {"timeout": 1.0}  # a machine that is busy with tests is no store that is gone: then each worker has half
    with ExitStack() as stack:
        sources = Sources(file, stack.enter_context(DnsServer()), stack.enter_context(KubeApi()))
        sources.have(one, two)
        gateway = stack.enter_context(Gateway(config, tmp_path))
        load = Load(gateway.http, body(MODEL, 15), 48)
        for found in ((two, three), (three,), (one, three), (one, two, three), (two,), (one, two)):
            sources.have(*found)
            await load.more(len(load.seen) + 100)
        seen = await load.stop()
        assert [each for each in seen if not each.whole] == []
        most = [engine.stats()["max_running"] for engine in engines]
        assert 1 < min(most) <= max(most) <= 8, (most, gateway.output)
        assert "Traceback" not in gateway.output
