"""Loads the configuration again: on SIGHUP, when the file has changed, and on the rpc Reload. A bad one changes nothing."""

import asyncio
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec
import structlog
from pydantic import BaseModel

from lexora_router.access.key_file import KeyFileError
from lexora_router.config import Config, TelemetryConfig
from lexora_router.config.engine_tls import EngineTls
from lexora_router.config.load import ConfigError, Loaded
from lexora_router.config.models import CorsConfig
from lexora_router.config.problems import Path, Problem, show
from lexora_router.config.state import StateConfig, StateTlsConfig
from lexora_router.config.tls import TlsConfig
from lexora_router.config.tls_files import BadTlsFile
from lexora_router.discovery.discovery import load_libraries
from lexora_router.engines.tls import tls_context
from lexora_router.process.app import RouterApp
from lexora_router.process.engine_certificates import EngineCertificates
from lexora_router.process.server_tls import ServerTls
from lexora_router.process.source import ConfigSource
from lexora_router.telemetry.reloads import Reload, Result
from lexora_router.workers.link import WorkerLink

# What the supervisor of several workers has taken at its start: no new worker changes it.
FIXED_KEYS = frozenset(
    {
        "server.workers",
        "server.host",
        "server.port",
        "server.grpc_host",
        "server.grpc_port",
        "server.metrics_port",
        "server.admin_host",
        "server.admin_port",
        "server.admin_grpc_port",
    }
)
# Read at the start only: where to listen, what has been given to the servers, how to log, and where traces go.
RESTART_KEYS = FIXED_KEYS | frozenset(
    {
        "server.reflection",
        "server.channelz",
        "server.max_connections",
        "server.max_connections_per_address",
        "server.max_connection_age",
        "server.hosts",
        "server.max_body_bytes",
        "server.max_buffered_bytes",
        "server.max_request_timeout",
        "server.write_timeout",
        "server.stream_keepalive",
        "audit.file",
        "auth.keys",
        "logging.level",
        "logging.format",
        *(f"server.cors.{key}" for key in CorsConfig.model_fields),
        *(f"server.tls.{key}" for key in TlsConfig.model_fields if key not in TlsConfig.FILES),
        *(f"state.{key}" for key in StateConfig.model_fields if key != "tls"),
        *(f"state.tls.{key}" for key in StateTlsConfig.model_fields),
        *(f"telemetry.{key}" for key in TelemetryConfig.model_fields),
    }
)
_TLS_FILES = frozenset(f"server.tls.{key}" for key in TlsConfig.FILES)
# A file must have been left alone for this many seconds before it is loaded: it may still be written.
SETTLE_SECONDS = 0.2

# The other workers are asked to load it as well, and waited for this long.
ASK_SECONDS = 30.0
RELOAD = "reload"

_log = structlog.get_logger("lexora.reload")
_Section = TypeVar("_Section", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A configuration that can be put in force, and TLS to its engines."""

    config: Config
    warnings: tuple[str, ...]
    changed: tuple[str, ...]
    restart: tuple[str, ...]
    tls: dict[EngineTls, ssl.SSLContext]
    renew: Callable[[], None] | None  # puts other files of server.tls in force


class _Answer(msgspec.Struct):
    """One worker's: the keys that take a new worker, those that take a new supervisor, and all of it."""

    refused: bool
    roll: list[str]
    fixed: list[str]
    reload: Reload


class Reloader:
    """Reloads one at a time; requests that come while one runs share the next.

    `start` it in the event loop, `close` it at the end. `hangup` is set by SIGHUP.
    """

    def __init__(
        self,
        router: RouterApp,
        source: ConfigSource,
        hangup: asyncio.Event,
        server_tls: ServerTls | None = None,
        link: WorkerLink | None = None,
    ) -> None:
        self._router = router
        self._server_tls = server_tls
        self._engine_certificates = EngineCertificates(lambda: router.backends)
        self._source = source
        self._hangup = hangup
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[Reload] | None = None
        self._runs: set[asyncio.Task[Reload]] = set()
        self._applied = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._link = link
        if link is not None:
            link.answer(RELOAD, self._answer)

    def start(self) -> None:
        """Begin to listen to SIGHUP, the file and the rpc."""
        self._router.reload_with(lambda: self.reload_all("rpc"))
        self._tasks = [
            asyncio.create_task(self._on_hangup(), name="lexora-hangup"),
            asyncio.create_task(self._watch(), name="lexora-watch"),
        ]
        if self._server_tls is not None:
            self._server_tls.start(lambda: self._router.config.reload)

    async def close(self) -> None:
        """Reload no more; a reload under way is waited for."""
        self._router.reload_with(None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._runs, return_exceptions=True)
        if self._server_tls is not None:
            await self._server_tls.close()

    async def reload(self, trigger: str) -> Reload:
        """Load the configuration and put it in force, if it can be used and is another one; gives the result."""
        if self._next is None:
            self._next = asyncio.create_task(self._run(trigger))
            self._runs.add(self._next)
            self._next.add_done_callback(self._runs.discard)
        return await asyncio.shield(self._next)

    async def reload_all(self, trigger: str) -> Reload:
        """The same in all workers; gives the worst result."""
        if self._link is None:
            return await self.reload(trigger)
        asking = asyncio.create_task(self._link.ask(RELOAD, msgspec.json.encode(trigger), ASK_SECONDS))
        own = await self.reload(trigger)
        parts = await asking
        others = [msgspec.json.decode(part.body, type=_Answer).reload for part in parts if part.body is not None]
        silent = [f"worker {part.worker} has not answered in {ASK_SECONDS:g} s" for part in parts if part.body is None]
        return worst([own, *others], silent)

    async def _answer(self, body: bytes) -> bytes:
        """What another worker, or the supervisor, asks for: it gets the keys that are not in force by this."""
        reload = await self.reload(msgspec.json.decode(body, type=str))
        restart = set(reload.restart)
        answer = _Answer(reload.result is Result.REFUSED, sorted(restart - FIXED_KEYS), sorted(restart & FIXED_KEYS), reload)
        return msgspec.json.encode(answer)

    async def _run(self, trigger: str) -> Reload:
        async with self._lock:
            self._next = None  # a request from here on may be for a newer file
            await self._look_at_certificates()
            reload = await self._once(trigger)
            self._engine_certificates.note()
        _tell(reload)
        self._router.audit.note_once(
            "configuration_reloaded",
            trigger=reload.trigger,
            result=str(reload.result),
            changed=reload.changed,
            needs_restart=reload.restart,
        )
        self._applied.set()
        return reload

    async def _once(self, trigger: str) -> Reload:
        log = self._router.reloads
        try:
            prepared = await asyncio.to_thread(self._prepare)
            changed, restart, warnings = prepared.changed, prepared.restart, prepared.warnings
            if len(restart) == len(changed):
                return log.add(Result.UNCHANGED, trigger, warnings=warnings, changed=changed, restart=restart)
            if self._router.guard.draining:
                return log.add(Result.REFUSED, trigger, problems=["the router is shutting down"])
            await self._router.reload(prepared.config, prepared.tls)
            if prepared.renew is not None:
                prepared.renew()
            return log.add(Result.APPLIED, trigger, warnings=warnings, changed=changed, restart=restart)
        except KeyFileError as error:
            return log.add(Result.REFUSED, trigger, problems=[f"auth.keys_file: {error}"])
        except ConfigError as error:
            return log.add(Result.REFUSED, trigger, problems=map(str, error.problems))
        except Exception:  # the boundary: a bug in one reload must end neither the watching nor the old configuration
            _log.exception("bug")
            return log.add(Result.REFUSED, trigger, problems=["internal error; the log has it"])

    async def _look_at_certificates(self) -> None:
        if self._server_tls is not None:
            await self._server_tls.look()
        await self._engine_certificates.look()

    def _prepare(self) -> _Prepared:
        """Runs in a thread: files may be on a slow disk, and certificates take their time."""
        loaded = self._source.load()
        load_libraries(loaded.config)
        running = self._router.config
        changed = tuple(sorted(set(differences(running, loaded.config))))
        restart = tuple(key for key in changed if key in restart_keys(running, loaded.config))
        kept = with_kept(running, loaded.config)
        if len(restart) == len(changed):
            return _Prepared(kept, loaded.warnings, changed, restart, {}, None)
        return _Prepared(kept, loaded.warnings, changed, restart, _tls(loaded), self._renewal(kept.server.tls))

    def _renewal(self, tls: TlsConfig) -> Callable[[], None] | None:
        """What puts the files of `server.tls` in force, if they are others; raises ConfigError."""
        try:
            return None if self._server_tls is None else self._server_tls.prepared(tls)
        except BadTlsFile as error:
            raise ConfigError([Problem(None, ("server", "tls", error.key), str(error))]) from None

    async def _on_hangup(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            await self.reload("signal")

    async def _watch(self) -> None:
        while True:
            await self._pause()
            if not self._router.config.reload.watch:
                continue
            await self._engine_certificates.look()
            news = await asyncio.to_thread(self._source.news)
            if news is None:
                continue
            await asyncio.sleep(SETTLE_SECONDS)
            if await asyncio.to_thread(self._source.news) == news:
                await self.reload("file")

    async def _pause(self) -> None:
        """Wait for `reload.interval`, or for a reload: it may have changed that."""
        self._applied.clear()
        try:
            async with asyncio.timeout(self._router.config.reload.interval):
                await self._applied.wait()
        except TimeoutError:
            pass  # time for a look


def worst(reloads: Sequence[Reload], warnings: Sequence[str] = ()) -> Reload:
    """One result of several: refused where one is, and everything that they say, each thing once."""
    ranks = (Result.REFUSED, Result.APPLIED, Result.UNCHANGED)
    found = min(reloads, key=lambda reload: ranks.index(reload.result))
    said: dict[str, Any] = {
        name: tuple(dict.fromkeys(line for reload in reloads for line in getattr(reload, name)))
        for name in ("problems", "warnings", "changed", "restart")
    }
    return replace(found, **{**said, "warnings": (*said["warnings"], *warnings)})


def differences(old: Any, new: Any, path: Path = ()) -> Iterator[str]:
    """Key paths at which two configurations differ: the whole of what is only in one of them, else the single keys."""
    if isinstance(old, BaseModel) and type(old) is type(new):
        for name in type(old).model_fields:
            yield from differences(getattr(old, name), getattr(new, name), (*path, name))
    elif isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from differences(old.get(name), new.get(name), (*path, name))
    elif old != new:
        yield show(path)


def restart_keys(running: Config, loaded: Config) -> frozenset[str]:
    """RESTART_KEYS, and the files of `server.tls` where TLS is turned on or off."""
    return RESTART_KEYS if running.server.tls.enabled == loaded.server.tls.enabled else RESTART_KEYS | _TLS_FILES


def with_kept(running: Config, loaded: Config) -> Config:
    """The loaded configuration, with the running one's values of what needs a restart."""
    for key in restart_keys(running, loaded):
        loaded = _with_value_of(running, loaded, key.split("."))
    return loaded


def _with_value_of(running: _Section, loaded: _Section, path: Sequence[str]) -> _Section:
    """A copy of `loaded` that has `running`'s value at a path."""
    name, *below = path
    value = getattr(running, name)
    return loaded.model_copy(update={name: _with_value_of(value, getattr(loaded, name), below) if below else value})


def _tls(loaded: Loaded) -> dict[EngineTls, ssl.SSLContext]:
    """TLS settings for every backend with an https address; raises ConfigError."""
    config, contexts = loaded.config, dict[EngineTls, ssl.SSLContext]()
    problems = []
    for name, backend in config.backends().items():
        if backend.tls in contexts or not backend.secured:
            continue
        try:
            contexts[backend.tls] = tls_context(backend.tls)
        except OSError as error:
            path = ("routing", "backends", name, "ca_file" if backend.client_cert is None else "client_cert")
            problems.append(Problem(None, path, f"cannot be used: {error.strerror or error}"))
    if problems:
        raise ConfigError(problems)
    return contexts


def _tell(reload: Reload) -> None:
    if reload.result is Result.REFUSED:
        _log.error("configuration_refused", trigger=reload.trigger, problems=reload.problems)
        return
    for warning in reload.warnings:
        _log.warning("configuration", warning=warning)
    event = f"configuration_{reload.result}"
    _log.info(event, trigger=reload.trigger, changed=reload.changed, needs_restart=reload.restart)
