"""From a command line to a serving process: configuration, logs, event loop, signals, exit code."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import structlog
import uvloop

from lexora_contract.escape import escaped
from lexora_router.config import Config
from lexora_router.config.load import ConfigError
from lexora_router.process.source import ConfigSource
from lexora_router.process.supervise import supervise, workers_of
from lexora_router.telemetry.logs import configure_logs
from lexora_router.telemetry.shared_stream import SharedStream
from lexora_router.telemetry.writer import LineWriter
from lexora_router.workers.plan import Place

FAILED = 1
COMMAND = "lexora_cli"  # what serves as several processes is started by it

_log = structlog.get_logger("lexora")


def launch(
    file: str | None,
    options: Mapping[str, Any],
    serve: Callable[[Config, ConfigSource], Coroutine[Any, Any, None]],
    *,
    search: bool = True,
    serves: Sequence[str] = (),
) -> int:
    """Load the configuration, lay `options` (values by key path, None for those that were not given) over it, and serve.

    Without a named `file` one is looked for in the usual places, unless `search` is false. With the names of the addresses that
    the command `serves`, it may have several workers: then this process becomes their supervisor, which runs the same command
    for each of them.

    `serve` gets the configuration, and where it is from, to load it again. Returns the exit code: 0 after a clean end, 1 when
    the configuration is wrong or an address cannot be had. What is wrong goes to stderr in plain words.
    """
    source = ConfigSource(file, options, os.environ, search=search)
    try:
        loaded = source.load()
    except ConfigError as error:
        sys.stderr.write(f"{complaint(error)}\n")
        return FAILED
    config = loaded.config
    if serves and Place.load() is None and workers_of(config) > 1:
        try:
            supervise(config, serves, [sys.executable, "-m", COMMAND, *sys.argv[1:]])
        except OSError as error:
            return _failed(error)
    writer = _logs(config)
    try:
        if not serves and workers_of(config) > 1:
            _log.warning("configuration", warning="server.workers has no effect here: several are started by `lexora`")
        _log.info("configuration", file=str(loaded.path) if loaded.path else None)
        for warning in loaded.warnings:
            _log.warning("configuration", warning=warning)
        run(serve(config, source))
    except OSError as error:
        return _failed(error)
    finally:
        writer.close()
    return 0


def _logs(config: Config) -> LineWriter:
    level, style, place = config.logging.level, config.logging.format, Place.load()
    if place is None:
        return configure_logs(level, style)
    return configure_logs(level, style, SharedStream(sys.stdout.fileno()), worker=place.number)


def _failed(error: OSError) -> int:
    sys.stderr.write(f"lexora: {escaped(str(error))}\n")
    return FAILED


def router_options(host: str | None, grpc_port: int | None, metrics_port: int | None) -> dict[str, str | int | None]:
    """The options of a command that serves the router alone, by key path; metrics are at the same host, if it is one."""
    metrics_host = None if host is None or host.startswith("unix:") else host
    return {
        "server.host": metrics_host,
        "server.grpc_host": host,
        "server.grpc_port": grpc_port,
        "server.metrics_port": metrics_port,
    }


def complaint(error: ConfigError) -> str:
    """Everything that is wrong with a configuration, one line each, below a headline."""
    count = len(error.problems)
    headline = f"lexora: the configuration cannot be used, {count} problem{'' if count == 1 else 's'}:"
    return "\n".join([headline, *(f"  {escaped(str(problem))}" for problem in error.problems)])


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on uvloop until it ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def stop_event() -> asyncio.Event:
    """Set by SIGTERM and SIGINT. A second signal ends the process at once, even when the event loop hangs."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def on_signal() -> None:
        event.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    return event


def hangup_event() -> asyncio.Event:
    """Set by SIGHUP, which ends the process no more. The event stays set until it is cleared."""
    event = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, event.set)
    return event
