"""`python -m tests.support.strangers USERS CALLS...`: a router in a process of its own, asked by new users for new models.

It remembers so many users, and prints a line of JSON at each count of calls: what it then tells, and what it holds.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from lexora.v1.call_pb2 import Call
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2 import GenerateRequest
from lexora.v1.stats_pb2 import GetStatsRequest
from lexora_contract.inprocess import InProcessRouter
from lexora_contract.port import CallContext, CallFailed
from lexora_contract.rpcs import GENERATE, GET_STATS
from lexora_router.config import BackendConfig, Config, RateLimitConfig, RoutingConfig
from lexora_router.process.app import RouterApp
from lexora_router.telemetry.logs import configure_logs
from tests.support.raw_server import closed_port

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CONTEXT = CallContext()


def resident(process: int | str = "self") -> int:
    """Memory of a process, in bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_BYTES


def series(exposition: str) -> list[str]:
    """The names of all series, with their labels."""
    return sorted(line.rpartition(" ")[0] for line in exposition.splitlines() if not line.startswith("#"))


def shape(told: Any, path: str = "") -> list[str]:
    """The places of all values, but for the history, which grows for five minutes."""
    if isinstance(told, dict):
        return sorted(place for name, value in told.items() if name != "history" for place in shape(value, f"{path}/{name}"))
    return [path]


async def _ask(router: InProcessRouter, number: int) -> None:
    body = b'{"model":"model-%d","user":"user-%d","messages":[]}' % (number, number)
    try:
        await router.unary(GENERATE, GenerateRequest(call=Call(raw=RawCall(path="/v1/chat/completions", body=body))), CONTEXT)
    except CallFailed:
        return
    raise AssertionError("a model that nobody has was served")


async def _run(users: int, counts: list[int]) -> None:
    backends = {"main": BackendConfig(url=f"http://127.0.0.1:{closed_port()}", models=())}
    limit = RateLimitConfig(max_users=users, default_rate=1e6)  # a name that is new is the only trouble
    app = RouterApp(Config(routing=RoutingConfig(backends=backends), rate_limit=limit))
    await app.start("127.0.0.1", 0)
    router, done = InProcessRouter(app.services), 0
    for count in counts:
        for number in range(done, count):
            await _ask(router, number)
        done = count
        response = await router.unary(GET_STATS, GetStatsRequest(), CONTEXT)
        stats = MessageToDict(response, always_print_fields_with_no_presence=True)
        told = {"series": series(app.metrics("")[0].decode()), "stats": shape(stats), "resident": resident()}
        print(json.dumps(told | {"calls": response.calls.total}), flush=True)
    await app.stop()


if __name__ == "__main__":
    writer = configure_logs("CRITICAL", "json", sys.stderr)  # its lines would wait in memory for their turn
    asyncio.run(_run(int(sys.argv[1]), [int(count) for count in sys.argv[2:]]))
    writer.close()
