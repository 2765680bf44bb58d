import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
import yaml
from tests.support.links import settle

from lexora_router.access.audit import AuditLog
from lexora_router.config import Config, TelemetryConfig
from lexora_router.config.audit import AuditConfig
from lexora_router.config.auth import AuthConfig
from lexora_router.config.engine_tls import EngineTls
from lexora_router.config.load import Loaded
from lexora_router.config.models import CorsConfig
from lexora_router.config.state import StateConfig, StateTlsConfig
from lexora_router.config.tls import TlsConfig
from lexora_router.process.app import RouterApp
from lexora_router.process.reload import RESTART_KEYS, Reloader, differences, restart_keys, with_kept
from lexora_router.process.source import ConfigSource
from lexora_router.telemetry.reloads import ReloadLog, Result

LOOK_SECONDS = 0.02


class FakeRouter:
    """Takes over configurations as RouterApp does; `error` is what goes wrong in it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.taken: list[Config] = []
        self.tls: dict[EngineTls, Any] = {}
        self.backends = ()
        self.error: Exception | None = None
        self.reloads = ReloadLog()
        self.audit = AuditLog()
        self.guard = SimpleNamespace(draining=False)
        self.on_request: Any = None

    def reload_with(self, reload: Any) -> None:
        self.on_request = reload

    async def reload(self, config: Config, tls: Any) -> None:
        if self.error is not None:
            raise self.error
        self.config, self.tls = config, tls
        self.taken.append(config)


class GatedSource(ConfigSource):
    """A source whose loads wait for `gate`, when there is one; `loads` counts them."""

    gate: threading.Event | None = None
    loads = 0
    threads: set[str]

    def load(self) -> Loaded:
        self.loads += 1
        self.threads = {threading.current_thread().name}
        if self.gate is not None:
            assert self.gate.wait(5)
        return super().load()


@dataclass
class Rig:
    file: Path
    router: FakeRouter
    source: GatedSource
    hangup: asyncio.Event
    reloader: Reloader

    def write(self, **config: Any) -> None:
        self.file.write_text(yaml.safe_dump(BASE | config))

    @property
    def last(self) -> Any:
        return self.router.reloads.last


BASE: dict[str, Any] = {"reload": {"watch": False, "interval": LOOK_SECONDS}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexora_router.process.reload.SETTLE_SECONDS", 0.01)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(BASE))
    source = GatedSource(str(file), {"server.port": 0}, {})
    router = FakeRouter(source.load().config)
    hangup = asyncio.Event()
    reloader = Reloader(cast("RouterApp", router), source, hangup)
    reloader.start()
    yield Rig(file, router, source, hangup, reloader)
    await reloader.close()
    assert router.on_request is None


async def test_a_good_one_is_put_in_force(rig: Rig) -> None:
    rig.write(retry={"max_retries": 1}, health={"interval": 1.5})
    reload = await rig.reloader.reload("rpc")
    assert (reload.result, reload.trigger) == (Result.APPLIED, "rpc")
    assert reload.changed == ("health.interval", "retry.max_retries")
    assert reload.restart == ()
    assert [config.retry.max_retries for config in rig.router.taken] == [1]
    assert rig.last == reload
    assert rig.source.threads != {threading.current_thread().name}, "files are not read on the event loop"


async def test_a_bad_one_is_refused_with_every_reason_and_changes_nothing(rig: Rig) -> None:
    rig.file.write_text("server: {prot: 1}\nloging: {}\nrouting: {default_backend: nobody}\n")
    with structlog.testing.capture_logs() as lines:
        reload = await rig.reloader.reload("file")
    assert reload.result is Result.REFUSED
    assert [problem.partition(":")[2].split(": ")[1] for problem in reload.problems] == [
        "server.prot",
        "loging",
        "routing.default_backend",
    ]
    assert rig.router.taken == []
    assert lines == [
        {"event": "configuration_refused", "log_level": "error", "trigger": "file", "problems": reload.problems},
    ]


async def test_the_same_again_is_no_swap(rig: Rig) -> None:
    rig.file.write_text("# a comment\n" + rig.file.read_text())
    assert (await rig.reloader.reload("rpc")).result is Result.UNCHANGED
    assert rig.router.taken == []


async def test_what_needs_a_restart_is_named_and_keeps_its_value(rig: Rig) -> None:
    rig.write(server={"host": "10.1.1.1", "drain_timeout": 3, "max_body_bytes": 7}, logging={"level": "DEBUG"})
    reload = await rig.reloader.reload("rpc")
    assert reload.result is Result.APPLIED
    assert reload.restart == ("logging.level", "server.host", "server.max_body_bytes")
    assert set(reload.changed) - set(reload.restart) == {"server.drain_timeout"}
    [config] = rig.router.taken
    assert config.server == Config().server.model_copy(update={"port": 0, "drain_timeout": 3.0})
    assert config.logging == Config().logging
    again = await rig.reloader.reload("rpc")
    assert (again.result, again.restart) == (Result.UNCHANGED, reload.restart), "it is still not in force"


async def test_an_option_of_the_command_still_wins(rig: Rig) -> None:
    rig.write(server={"port": 99})
    reload = await rig.reloader.reload("rpc")
    assert (reload.result, reload.changed) == (Result.UNCHANGED, ())


async def test_a_ca_file_that_cannot_be_read_is_a_reason(rig: Rig) -> None:
    rig.write(routing={"backends": {"far": {"url": "https://e:1", "ca_file": "/no/such.pem"}}})
    reload = await rig.reloader.reload("rpc")
    assert reload.result is Result.REFUSED
    assert [problem.partition("routing.")[2] for problem in reload.problems] == [
        "backends.far.ca_file: cannot be read: No such file or directory"
    ]


async def test_tls_settings_are_made_ahead_once_for_each_file(rig: Rig) -> None:
    far = {"url": "https://e:1", "models": ["m"]}
    rig.write(routing={"backends": {"far": far, "farther": far | {"models": ["n"]}, "near": {"url": "http://e:2"}}})
    assert (await rig.reloader.reload("rpc")).result is Result.APPLIED
    assert set(rig.router.tls) == {EngineTls()}


async def test_a_bug_ends_neither_the_old_configuration_nor_the_reloads(rig: Rig) -> None:
    rig.router.error = KeyError("secret")
    rig.write(retry={"max_retries": 1})
    with structlog.testing.capture_logs() as lines:
        assert (await rig.reloader.reload("rpc")).problems == ("internal error; the log has it",)
    assert lines[0]["event"] == "bug"
    rig.router.error = None
    assert (await rig.reloader.reload("rpc")).result is Result.APPLIED


async def test_no_swap_while_the_router_shuts_down(rig: Rig) -> None:
    rig.router.guard.draining = True
    rig.write(retry={"max_retries": 1})
    reload = await rig.reloader.reload("signal")
    assert (reload.result, reload.problems) == (Result.REFUSED, ("the router is shutting down",))
    assert rig.router.taken == []


async def test_one_at_a_time_and_those_who_ask_meanwhile_share_the_next(rig: Rig) -> None:
    rig.source.gate = threading.Event()
    before = rig.source.loads
    first = asyncio.create_task(rig.reloader.reload("rpc"))
    await settle(lambda: rig.source.loads == before + 1)
    rig.write(retry={"max_retries": 4})
    others = [asyncio.create_task(rig.reloader.reload("rpc")) for _ in range(50)]
    others[0].cancel()
    await asyncio.sleep(0)
    rig.source.gate.set()
    await first
    found = await asyncio.gather(*others[1:])
    assert rig.source.loads == before + 2
    assert len({id(reload) for reload in found}) == 1
    assert rig.router.config.retry.max_retries == 4


async def test_warnings_are_told(rig: Rig) -> None:
    rig.write(vllm={"url": "http://e:1", "api_key_env": "NO_SUCH_KEY"})
    with structlog.testing.capture_logs() as lines:
        reload = await rig.reloader.reload("rpc")
    assert "NO_SUCH_KEY" in reload.warnings[0]
    assert [line["event"] for line in lines] == ["configuration", "configuration_applied"]


@pytest.fixture
def watched(rig: Rig) -> Callable[..., None]:
    """Write a configuration under which the file is watched."""

    def write(**config: Any) -> None:
        rig.write(**({"reload": {"watch": True, "interval": LOOK_SECONDS}} | config))

    return write


async def test_a_changed_file_is_loaded_and_a_refused_one_is_not_tried_until_it_changes(
    rig: Rig, watched: Callable[..., None]
) -> None:
    watched()
    await rig.reloader.reload("rpc")
    watched(retry={"max_retries": 1})
    await settle(lambda: rig.last.trigger == "file" and rig.last.result is Result.APPLIED)
    rig.file.write_text("retry: {max_retries: x}")
    await settle(lambda: rig.last.result is Result.REFUSED)
    loads = rig.source.loads
    await asyncio.sleep(5 * LOOK_SECONDS)
    assert rig.source.loads == loads
    watched(retry={"max_retries": 2})
    await settle(lambda: rig.router.config.retry.max_retries == 2)


async def test_a_file_that_is_still_written_is_left_alone(rig: Rig, watched: Callable[..., None]) -> None:
    watched()
    await rig.reloader.reload("rpc")
    before = rig.source.loads
    until = asyncio.get_running_loop().time() + 10 * LOOK_SECONDS
    length = 0
    while asyncio.get_running_loop().time() < until:
        length += 1
        rig.file.write_text("#" * length)
        await asyncio.sleep(0.002)
    assert rig.source.loads == before
    rig.file.unlink()
    await asyncio.sleep(3 * LOOK_SECONDS)
    assert rig.source.loads == before
    assert rig.router.config.retry.max_retries == 3


async def test_a_file_that_is_not_watched_is_not_loaded(rig: Rig) -> None:
    before = rig.source.loads
    rig.write(retry={"max_retries": 1})
    await asyncio.sleep(5 * LOOK_SECONDS)
    assert rig.source.loads == before


async def test_another_interval_counts_at_once(rig: Rig, watched: Callable[..., None]) -> None:
    rig.write(reload={"watch": True, "interval": 3600})
    await rig.reloader.reload("rpc")
    await asyncio.sleep(2 * LOOK_SECONDS)
    watched()
    await rig.reloader.reload("rpc")
    watched(retry={"max_retries": 1})
    await settle(lambda: rig.last.trigger == "file")


async def test_the_end_waits_for_a_reload_under_way(rig: Rig) -> None:
    rig.source.gate = threading.Event()
    rig.write(retry={"max_retries": 1})
    task = asyncio.create_task(rig.reloader.reload("rpc"))
    await settle(lambda: rig.source.loads == 2)
    closing = asyncio.create_task(rig.reloader.close())
    await asyncio.sleep(0)
    assert not closing.done()
    rig.source.gate.set()
    await closing
    assert (await task).result is Result.APPLIED


def test_differences_name_keys_and_never_values() -> None:
    old = Config.model_validate(
        {"routing": {"backends": {"a": {"url": "http://e:1", "api_key": "one"}, "b": {"url": "http://e:2"}}}}
    )
    new = Config.model_validate(
        {"routing": {"backends": {"a": {"url": "http://e:1", "api_key": "two"}, "c": {"url": "http://e:2"}}}}
    )
    assert sorted(differences(old, new)) == ["routing.backends.a.api_key", "routing.backends.b", "routing.backends.c"]
    assert list(differences(old, old.model_copy())) == []


def test_every_key_that_needs_a_restart_exists_and_is_kept() -> None:
    running = Config()
    assert len(RESTART_KEYS) == 43
    loaded = running.model_copy(
        update={
            "server": running.server.model_copy(
                update={
                    "workers": 2,
                    "host": "h",
                    "port": 1,
                    "grpc_host": "g",
                    "grpc_port": 2,
                    "metrics_port": 5,
                    "admin_host": "a",
                    "admin_port": 9,
                    "admin_grpc_port": 10,
                    "reflection": False,
                    "channelz": True,
                    "max_body_bytes": 3,
                    "max_connection_age": 11.0,
                    "hosts": ("h",),
                    "max_buffered_bytes": 7,
                    "max_connections": 100,
                    "max_connections_per_address": 50,
                    "max_request_timeout": 4.0,
                    "write_timeout": 6.0,
                    "stream_keepalive": 8.0,
                    "cors": CorsConfig(allow_origins=("*",), allow_headers=("a",), max_age=1.0),
                    "tls": TlsConfig(
                        cert="c",
                        key="k",
                        client_ca="a",
                        client_auth="required",
                        grpc_client_auth="required",
                        handshake_timeout=1.0,
                    ),
                }
            ),
            "auth": AuthConfig(keys="shared"),
            "audit": AuditConfig(file="audit.jsonl"),
            "logging": running.logging.model_copy(update={"level": "DEBUG", "format": "json"}),
            "telemetry": TelemetryConfig(
                otlp_endpoint="http://collector:4317",
                ca_file="c.pem",
                service_name="s",
                sample_ratio=0.5,
                capture_prompts=True,
                metrics_interval=1.0,
            ),
            "state": StateConfig(
                url="valkeys://store",
                password_env="P",
                timeout=0.1,
                namespace="n",
                tls=StateTlsConfig(ca="ca.pem", cert="c.pem", key="k.pem"),
            ),
        }
    )
    assert set(differences(running, loaded)) == restart_keys(running, loaded)
    assert restart_keys(running, loaded) - RESTART_KEYS == {f"server.tls.{name}" for name in TlsConfig.FILES}
    assert with_kept(running, loaded) == running
