"""What the command that reads the configuration leaves to the supervisor, and the supervisor to each worker: in a variable.

No name begins with LEXORA_, which the configuration reads.
"""

import json
import os
import socket
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Self

PLAN_VARIABLE = "SPIRROW_LEXORA_PLAN"
PLACE_VARIABLE = "SPIRROW_LEXORA_WORKER"
SUPERVISOR = "lexora_router.workers.supervisor"
COORDINATOR = "lexora_router.state"


@dataclass(frozen=True, slots=True)
class Address:
    """An address that all workers serve: the settings' name for it (http, grpc, ...), and the socket that keeps it."""

    name: str
    host: str
    port: int
    keeper: int  # bound and never listening: the port stays this gateway's while no worker has it
    by_grpc: bool  # gRPC makes its own socket


@dataclass(frozen=True, slots=True)
class Plan:
    """`command` starts a worker, `shown` is what the line "serving" says; `json_log` is the form of the supervisor's own lines.

    `coordinator` says whether the workers have one, which keeps limits over all of them; a store of the configuration may.
    """

    command: list[str]
    workers: int
    addresses: list[Address]
    shown: dict[str, str]
    drain_timeout: float
    json_log: bool
    quiet: bool = False  # nothing below warnings is logged
    coordinator: bool = False

    def save(self) -> dict[str, str]:
        """The environment that has it."""
        return {**os.environ, PLAN_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def load(cls) -> Self:
        """Of this process, whose own processes do not get it."""
        found = json.loads(os.environ.pop(PLAN_VARIABLE))
        return cls(**{**found, "addresses": [Address(**each) for each in found["addresses"]]})


@dataclass(frozen=True, slots=True)
class Place:
    """One worker: its number from 1, how many there are, its end of the link, and what it serves.

    `sockets` are by name of the address, bound and not listening yet; `ports` are those that gRPC listens on by itself.
    """

    number: int
    workers: int
    link: int
    sockets: dict[str, int] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    coordinator: str | None = None  # its socket
    secret: str = field(default="", repr=False)  # random, of all workers; hexadecimal

    def save(self) -> dict[str, str]:
        """The environment that has it."""
        return {**os.environ, PLACE_VARIABLE: json.dumps(asdict(self))}

    @staticmethod
    @cache
    def load() -> "Place | None":
        """Of this process, whose own processes do not get it; None: it is no worker."""
        found: Any = json.loads(os.environ.pop(PLACE_VARIABLE, "null"))
        return None if found is None else Place(**found)

    def socket(self, name: str) -> socket.socket | None:
        """The socket of an address; None where the supervisor made none."""
        return socket.socket(fileno=self.sockets[name]) if name in self.sockets else None
