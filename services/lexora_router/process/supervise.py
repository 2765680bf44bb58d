"""From a command whose configuration has several workers to their supervisor: addresses are taken, then it becomes that.

The supervisor takes this process's place (exec), so that what reads a configuration is no longer in memory.
"""

import os
import socket
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from lexora_router.config import Config
from lexora_router.config.models import ServerConfig
from lexora_router.machine import usable_cores
from lexora_router.process.listening import (
    ADMIN,
    ADMIN_GRPC,
    GRPC,
    HTTP,
    METRICS,
    CannotListen,
    Settings,
    address,
    listening_address,
)
from lexora_router.workers.plan import SUPERVISOR, Address, Plan
from lexora_router.workers.sockets import keep

# What a command serves.
BOTH = ("http", "admin", "grpc", "admin_grpc")
ROUTER = ("metrics", "grpc", "admin_grpc")
GATEWAY = ("http", "admin")


class _Wanted(NamedTuple):
    host: str
    port: int | None  # None: no such port is configured
    settings: Settings
    by_grpc: bool = False


def workers_of(config: Config) -> int:
    """How many processes are to serve."""
    workers = config.server.workers
    return usable_cores() if workers == "auto" else workers


def supervise(config: Config, serves: Sequence[str], command: Sequence[str]) -> NoReturn:
    """Be the supervisor of the workers that `command` starts. Raises CannotListen, as one process would."""
    server = config.server
    wanted = _wanted(server)
    keepers, addresses = [], []
    for name in serves:
        want = wanted[name]
        if want.port is not None:
            keeper = _keep(want)
            keepers.append(keeper)
            os.set_inheritable(keeper.fileno(), True)
            port = keeper.getsockname()[1]
            addresses.append(Address(name, want.host, port, keeper.fileno(), want.by_grpc))
    secured = "https" if server.tls.enabled else "http"
    plan = Plan(
        list(command),
        workers_of(config),
        addresses,
        shown={each.name: _shown(each, keeper, secured) for each, keeper in zip(addresses, keepers, strict=True)},
        drain_timeout=server.drain_timeout,
        json_log=config.logging.format == "json",
        coordinator="grpc" in serves and config.state.url is None,
        quiet=config.logging.level in ("WARNING", "ERROR", "CRITICAL"),
    )
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", SUPERVISOR], plan.save())  # noqa: S606 - this command again


def _wanted(server: ServerConfig) -> dict[str, _Wanted]:
    admin = server.admin_host or server.host
    return {
        "http": _Wanted(server.host, server.port, HTTP),
        "admin": _Wanted(admin, server.admin_port, ADMIN),
        "grpc": _Wanted(server.grpc_host or server.host, server.grpc_port, GRPC, by_grpc=True),
        "admin_grpc": _Wanted(admin, server.admin_grpc_port, ADMIN_GRPC, by_grpc=True),
        "metrics": _Wanted(server.host, server.metrics_port, METRICS),
    }


def _keep(want: _Wanted) -> socket.socket:
    assert want.port is not None
    if want.host.startswith("unix:"):
        reason = "a socket in the file system is one process's; take a port, or one worker"
        raise CannotListen(want.host, OSError(reason), want.settings)
    try:
        return keep(want.host, want.port)
    except OSError as error:
        raise CannotListen(address(want.host, want.port), error, want.settings) from error


def _shown(each: Address, keeper: socket.socket, secured: str) -> str:
    """An address as the line "serving" has it."""
    if each.by_grpc:
        return address(each.host, each.port)
    return f"{secured}://{listening_address(keeper)}{'/metrics' if each.name == 'metrics' else ''}"
