"""A new configuration while calls are under way: no call fails, state stays, and a wrong one changes nothing."""

import asyncio
import copy
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lexora.v1.reload_pb2 import RELOAD_RESULT_APPLIED, RELOAD_RESULT_REFUSED, ReloadReport
from lexora_cli.client import RouterClient
from tests.chaos.conftest import MODEL
from tests.chaos.streams import CHAT, Load, body, client, stream
from tests.support import wire
from tests.support.servers import Gateway, Simulator, base_config

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[Simulator, Simulator]]:
    options = ("--itl-ms", "2", "--max-num-seqs", "1000")
    with Simulator(*options, model=MODEL) as one, Simulator(*options, model=MODEL) as two:
        yield one, two


@pytest.fixture(autouse=True)
def clean(engines: tuple[Simulator, Simulator]) -> None:
    for engine in engines:
        engine.clear()


def config(*engines: Simulator, watch: bool = False, **backend: Any) -> dict[str, Any]:
    urls = [engine.url for engine in engines]
    found = base_config(main={"urls": urls, "models": [MODEL], **backend})
    found["reload"] = {"watch": watch, "interval": 0.1}
    return found


def write(gateway: Gateway, config: dict[str, Any]) -> None:
    """Replace the file in one step, as editors and deployments do."""
    fresh = gateway.config_file.with_suffix(".new")
    fresh.write_text(yaml.safe_dump(config))
    fresh.rename(gateway.config_file)


def reload(gateway: Gateway) -> ReloadReport:
    """What the router says to the rpc."""
    with RouterClient(gateway.grpc) as router:
        return router.reload()


async def applied(gateway: Gateway, config: dict[str, Any]) -> ReloadReport:
    """Put another configuration in force."""
    write(gateway, config)
    report = await asyncio.to_thread(reload, gateway)
    assert report.result == RELOAD_RESULT_APPLIED, report
    return report


def last(gateway: Gateway) -> dict[str, Any] | None:
    found = httpx.get(f"{gateway.http}/stats", verify=False).raise_for_status().json()["last_reload"]
    return None if found is None else dict(found)


def reloaded(gateway: Gateway, **wanted: Any) -> dict[str, Any]:
    """The last reload, once it is like this."""

    def found() -> dict[str, Any] | None:
        report = last(gateway)
        return report if report is not None and wanted.items() <= report.items() else None

    return dict(wire.wait_until(found, f"a reload like {wanted}, not {last(gateway)}", 10))


async def test_20_reloads_under_load(engines: tuple[Simulator, Simulator], tmp_path: Path) -> None:
    """Every fourth one is invalid; the others change limits, replicas, queues, retries, health and the very backend."""
    one, two = engines
    first = config(one, two, max_concurrency=4)
    changes: list[Change] = [
        lambda c: c["routing"]["backends"]["main"].update(max_concurrency=8),
        lambda c: c["routing"]["backends"]["main"].update(urls=[two.url]),
        lambda c: c.update(health={"interval": 0.5, "window": 10.0}, queue={"max_size": 500}, tenants={"x": {"weight": 2}}),
        lambda c: c["routing"]["backends"]["main"].update(max_concurrency="many", tiemout=1),  # wrong
    ]
    with Gateway(first, tmp_path) as gateway:
        load = Load(gateway.http, body(MODEL, 20), 24)
        for number in range(20):
            wanted = copy.deepcopy(first)
            wanted["retry"] = {"max_retries": number}
            changes[number % 4](wanted)
            before = len(load.seen)
            if number % 4 == 3:
                write(gateway, wanted)
                report = await asyncio.to_thread(reload, gateway)
                assert (report.result, len(report.problems)) == (RELOAD_RESULT_REFUSED, 2), report
            else:
                await applied(gateway, wanted)
            await load.more(before + 24)
        seen = await load.stop()
        assert len(seen) >= 20 * 24
        assert [each for each in seen if not each.whole] == []
        await asyncio.to_thread(wire.wait_idle, gateway.http)
        assert gateway.metric("lexora_config_reloads_total", result="applied") == 15
        assert gateway.metric("lexora_config_reloads_total", result="refused") == 5
        assert gateway.metric("lexora_requests_total", status="200") == len(seen)
        assert "Traceback" not in gateway.output
        await asyncio.to_thread(few_connections, engines)


def few_connections(engines: tuple[Simulator, Simulator]) -> None:
    """Connections of earlier configurations are closed, once they are idle: probes and this question are what is left."""
    wire.wait_until(lambda: all(e.stats()["connections"] <= 4 for e in engines), "connections of old configurations", 10)


async def test_a_queue_and_its_slots_outlive_a_reload(engines: tuple[Simulator, Simulator], tmp_path: Path) -> None:
    one, _ = engines
    wanted = config(one, max_concurrency=2)
    with Gateway(wanted, tmp_path) as gateway:
        async with client(gateway.http) as http:
            long = [asyncio.create_task(stream(http, body(MODEL, 20_000))) for _ in range(2)]
            await asyncio.to_thread(wire.wait_until, lambda: one.stats()["running"] == 2, "2 streams")
            short = [asyncio.create_task(stream(http, body(MODEL, 2))) for _ in range(10)]
            await asyncio.to_thread(wire.wait_until, lambda: gateway.metric("lexora_active_requests") == 12, "12 calls")
            for weight in (2, 3, 4):  # rebuilds every backend
                wanted["tenants"] = {"x": {"weight": weight}}
                await applied(gateway, wanted)
                assert gateway.metric("lexora_active_requests") == 12
                assert gateway.metric("lexora_endpoint_in_flight") == 2
                assert one.stats()["running"] == 2, "waiting calls must wait under the new configuration as well"
            wanted["routing"]["backends"]["main"]["max_concurrency"] = 4
            await applied(gateway, wanted)
            assert all(each.whole for each in await asyncio.gather(*short)), "two slots more are used by those who waited"
            assert one.stats()["running"] == 2
            for each in long:
                each.cancel()
            await asyncio.gather(*long, return_exceptions=True)
            await asyncio.to_thread(wire.wait_idle, gateway.http)
        assert one.stats()["max_running"] <= 4


async def test_calls_finish_on_a_backend_that_is_gone(engines: tuple[Simulator, Simulator], tmp_path: Path) -> None:
    one, two = engines
    with Gateway(config(one, max_concurrency=1), tmp_path) as gateway:
        async with client(gateway.http) as http:
            calls = [asyncio.create_task(stream(http, body(MODEL, 200))) for _ in range(3)]
            await asyncio.to_thread(wire.wait_until, lambda: gateway.metric("lexora_active_requests") == 3, "3 calls")
            await applied(gateway, base_config(other={"url": two.url, "models": [MODEL]}))
            fresh = await http.post(CHAT, json=body(MODEL, 1, stream=False))
            assert fresh.headers["x-lexora-backend"] == "other"
            assert all(each.whole for each in await asyncio.gather(*calls))
        assert one.stats()["completed"] == 3
        await asyncio.to_thread(wire.wait_idle, gateway.http)


async def test_a_used_up_bucket_stays_used_up(engines: tuple[Simulator, Simulator], tmp_path: Path) -> None:
    wanted = config(engines[0])
    wanted["rate_limit"] = {"enabled": True, "default_rate": 0.01, "default_burst": 3}
    with Gateway(wanted, tmp_path) as gateway:
        async with client(gateway.http) as http:
            asked = body(MODEL, 1, stream=False, user="alice")
            statuses = [(await http.post(CHAT, json=asked)).status_code for _ in range(4)]
            assert statuses == [200, 200, 200, 429]
            wanted["rate_limit"]["default_burst"] = 5
            wanted["tenants"] = {"bob": {"weight": 3}}
            await applied(gateway, wanted)
            assert (await http.post(CHAT, json=asked)).status_code == 429
            assert (await http.post(CHAT, json=asked | {"user": "carol"})).status_code == 200
            wanted["rate_limit"]["enabled"] = False
            await applied(gateway, wanted)
            for answer in (await http.post(CHAT, json=asked), await http.post(CHAT, json=asked | {"model": 5})):
                assert (answer.status_code, "x-ratelimit-limit-requests" in answer.headers) in ((200, False), (400, False))


def test_sighup_loads_the_file_and_names_what_needs_a_restart(engines: tuple[Simulator, Simulator], tmp_path: Path) -> None:
    wanted = config(engines[0])
    with Gateway(wanted, tmp_path) as gateway:
        assert last(gateway) is None
        wanted["server"]["port"] = 1
        wanted["logging"] = {"level": "ERROR"}
        wanted["routing"]["backends"]["main"]["models"].append("new-model")
        write(gateway, wanted)
        gateway.signal(signal.SIGHUP)
        report = reloaded(gateway, result="applied", trigger="signal")
        assert report["keys_needing_restart"] == ["logging.level", "server.port"]
        assert "routing.backends.main.models" in report["changed_keys"]
        assert "new-model" in httpx.get(f"{gateway.http}/v1/models", verify=False).text
        gateway.signal(signal.SIGHUP)
        assert reloaded(gateway, result="unchanged")["good_reloads"] == 2
        assert gateway.metric("lexora_config_last_reload_success") == 1


def test_a_broken_file_is_refused_with_all_reasons(engines: tuple[Simulator, Simulator], tmp_path: Path) -> None:
    wanted = config(engines[0], watch=True)
    with Gateway(wanted, tmp_path) as gateway:
        gateway.config_file.write_text("server: {prot: 1}\nloging: {}\nrouting: {default_backend: nobody}\n")
        report = reloaded(gateway, result="refused", trigger="file")
        assert len(report["problems"]) == 3
        line = gateway.wait_for("configuration_refused.*").group(0)
        for reason in ("server.prot", "loging", "default_backend"):
            assert any(reason in problem for problem in report["problems"])
            assert reason in line
        assert (report["good_reloads"], report["bad_reloads"]) == (0, 1)
        assert gateway.metric("lexora_config_last_reload_success") == 0
        answer = httpx.post(f"{gateway.http}{CHAT}", json=body(MODEL, 1, stream=False), verify=False)
        assert answer.status_code == 200
        wanted["retry"] = {"max_retries": 1}
        gateway.config_file.write_text(yaml.safe_dump(wanted))
        assert reloaded(gateway, result="applied", trigger="file")["bad_reloads"] == 1
        assert gateway.metric("lexora_config_last_reload_success") == 1


def test_a_file_behind_a_moved_link_is_seen_and_one_that_vanishes_is_not(
    engines: tuple[Simulator, Simulator], tmp_path: Path
) -> None:
    """As Kubernetes replaces a ConfigMap: the file is a link into a directory that is itself reached by a link."""
    wanted = config(engines[0], watch=True)
    with Gateway(wanted, tmp_path) as gateway:
        wanted["retry"] = {"max_retries": 7}
        data = tmp_path / "..2"
        data.mkdir()
        (data / "lexora_config.yaml").write_text(yaml.safe_dump(wanted))
        (tmp_path / "..data").symlink_to("..2")
        link = tmp_path / "link"
        link.symlink_to("..data/lexora_config.yaml")
        link.rename(gateway.config_file)
        assert reloaded(gateway, trigger="file")["changed_keys"] == ["retry.max_retries"]
        wanted["retry"] = {"max_retries": 8}
        (tmp_path / "..3").mkdir()
        (tmp_path / "..3" / "lexora_config.yaml").write_text(yaml.safe_dump(wanted))
        (tmp_path / "next").symlink_to("..3")
        (tmp_path / "next").rename(tmp_path / "..data")
        assert reloaded(gateway, good_reloads=2)["result"] == "applied"
        os.unlink(gateway.config_file)
        wanted["retry"] = {"max_retries": 9}
        write(gateway, wanted)
        assert reloaded(gateway, good_reloads=3)["bad_reloads"] == 0
