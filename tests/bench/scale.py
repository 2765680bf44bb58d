"""`python -m tests.bench.scale`: what grows with engines, tenants and keys; figures of tools/scaling.py and docs/scaling.md.

The gateway's CPU is that of the process, so its figures suffer from other load as all of docs/performance.md do.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import structlog

from lexora_router.access.audit import AuditLog
from lexora_router.access.key_file import edit_keys
from lexora_router.access.key_format import new_key
from lexora_router.access.key_record import KeyRecord
from lexora_router.access.watched_keys import WatchedKeys
from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.rate_limits import LimitRules, RateLimits
from tests.bench.procs import cpu_seconds, memory_mib
from tests.support.process import Process, python
from tests.support.servers import Gateway, base_config

TENANTS = 200_000
KEYS = 100_000
ENDPOINTS = (1, 200)
INTERVAL_S = 0.5
WATCHED_S = 15.0


def probe() -> float:
    """Microseconds of CPU for a probe: a gateway with many endpoints and no calls, less one with a single endpoint."""
    idle, busy = (_idle_cpu(number) for number in ENDPOINTS)
    return (busy - idle) / ((ENDPOINTS[1] - ENDPOINTS[0]) / INTERVAL_S) * 1e6


def _idle_cpu(endpoints: int) -> float:
    """CPU seconds per second of a gateway that probes so many endpoints, which are addresses of one simulator."""
    with _engine() as port, tempfile.TemporaryDirectory() as folder:
        urls = [f"http://127.0.{number // 250}.{number % 250 + 1}:{port}" for number in range(endpoints)]
        config: dict[str, Any] = base_config(main={"urls": urls, "models": ["bench"]})
        config["health"] = {"interval": INTERVAL_S}
        with Gateway(config, Path(folder)) as gateway:
            gateway.wait_for(r"endpoint_up")
            time.sleep(2 * INTERVAL_S)  # what a start costs is over
            before, began = cpu_seconds([gateway.pid]), time.monotonic()
            time.sleep(WATCHED_S)
            return (cpu_seconds([gateway.pid]) - before) / (time.monotonic() - began)


@contextlib.contextmanager
def _engine() -> Iterator[int]:
    with Process(python("lexora_sim", "--host", "0.0.0.0", "--port", "0", "--model", "bench")) as engine:
        yield int(engine.wait_ready(r"on http://\S+:(\d+)").group(1))


def tenant() -> float:
    """KiB for a tenant that has made a call, with limits of requests, tokens and calls at once."""
    limiter = RateLimiter(LimitRules(RateLimits(1, 10, 1000, 100)), 0.0, max_users=TENANTS)

    def fill() -> RateLimiter:
        for number in range(TENANTS):
            limiter.check(f"tenant-{number}", 10, 0.0)
        return limiter

    return _grown(fill) / TENANTS


def key() -> float:
    """KiB for a key that was read from the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys.jsonl"
        edit_keys(path, lambda _: [_record(number) for number in range(KEYS)])
        return _grown(lambda: WatchedKeys(path, AuditLog())) / KEYS


def _record(number: int) -> KeyRecord:
    made = new_key()
    return KeyRecord(id=made.id, sha256=made.digest, name=f"key {number}", tenant=f"team-{number}")


def _grown(make: Callable[[], object]) -> float:
    """KiB by which this process grows, garbage collected."""
    gc.collect()
    before = memory_mib([os.getpid()])
    kept = make()
    gc.collect()
    grown = (memory_mib([os.getpid()]) - before) * 1024
    del kept
    return grown


def main() -> int:
    """Print the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print(f"memory of a tenant with limits   {tenant():8.2f} KiB")
    print(f"memory of a key of the file      {key():8.2f} KiB")
    print(f"CPU of a probe                   {probe():8.0f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
