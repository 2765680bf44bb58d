"""Large bodies: each is held once, in all they are bounded while they come and while they wait, and then the memory is back."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import load, wire
from tests.support.keys import add_key
from tests.support.load import chat
from tests.support.process import Process
from tests.support.queueing import CHAT, MODEL, by_grpc, gateway_for, grpc_stub, queued, slots_held
from tests.support.servers import Facade, Gateway, Simulator, base_config
from tests.support.strangers import resident

MIB = 2**20
BODY = MIB
WAITING = 60
TIMES = 2  # each copy more would be one; what bodies leave on their way, in both libraries' buffers, comes to half a one
FEW = 20 * MIB  # what else a process may grow by meanwhile


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "1", model=MODEL) as simulator:
        yield simulator


def long_chat(size: int = BODY, **more: Any) -> dict[str, Any]:
    """A chat call whose body has about so many bytes."""
    return chat(MODEL, 1, messages=[{"role": "user", "content": "x" * size}], **more)


def back(gateway: Process, before: int) -> None:
    """The memory is back within seconds."""
    wire.wait_until(lambda: resident(gateway.pid) < before + FEW, "the memory to be back", 15.0)


async def test_calls_that_wait_hold_their_bodies_once_and_so_many_bytes(sim: Simulator, tmp_path: Path) -> None:
    with gateway_for(sim, tmp_path, 1, queue={"max_bytes": (WAITING + 1) * BODY}) as gateway:
        async with (
            load.client(gateway.http) as one,
            grpc_stub(gateway) as stub,
            slots_held(one, sim, 1),
            asyncio.TaskGroup() as group,
        ):
            before = resident(gateway.pid)
            body = long_chat(BODY - 1000)
            tasks = [group.create_task(one.post(CHAT, body)) for _ in range(WAITING // 2)]
            tasks += [group.create_task(by_grpc(stub, f"grpc-{number}", body)) for number in range(WAITING // 2)]
            await queued(gateway, WAITING)
            held = resident(gateway.pid) - before
            assert held < TIMES * WAITING * BODY, f"{held / (WAITING * BODY):.2f} times the bodies"
            # Of what waits there is no more than allowed; the announced length is enough to know.
            for request in (wire.request(CHAT, headers={"content-length": str(3 * BODY)}), in_chunks(3 * BODY)):
                refused = await asyncio.to_thread(wire.exchange, gateway.http, request)
                error = json.loads(refused.body)["error"]
                assert (refused.status, error["code"]) == (429, "queue_full")
                assert "queue.max_bytes" in error["message"]
                assert int(refused.header("retry-after") or "") >= 1
            # A small one still finds its place.
            tasks.append(group.create_task(one.post(CHAT, chat(MODEL, 1))))
            await queued(gateway, WAITING + 1)
            for task in tasks:
                task.cancel()
            await queued(gateway, 0)
        await asyncio.to_thread(back, gateway, before)


def in_chunks(size: int) -> bytes:
    """A call whose length is known at its end only."""
    body = json.dumps(long_chat(size)).encode()
    head = wire.request(CHAT, headers={"content-length": "", "transfer-encoding": "chunked"})
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@contextlib.asynccontextmanager
async def unfinished(
    base: str, count: int, size: int, sent: int, *, user: str = "", key: str = ""
) -> AsyncIterator[list[socket.socket]]:
    """So many requests that announce a body of `size` bytes, and stop after `sent` of them. `user`: as a proxy names it."""
    shown = {"x-api-key": key} if key else {}
    head = wire.request(CHAT, headers={"content-length": str(size), "x-lexora-user": user} | shown)
    connections: list[socket.socket] = []

    def begin() -> None:
        for _ in range(count):
            connection = wire.connect(base)
            connections.append(connection)
            with contextlib.suppress(ConnectionError):
                connection.sendall(head + b" " * sent)

    await asyncio.to_thread(begin)
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def answered(connections: list[socket.socket]) -> list[int]:
    """The statuses of those that have an answer."""
    statuses = []
    for connection in connections:
        connection.settimeout(0.05)
        with contextlib.suppress(TimeoutError):
            statuses.append(wire.read_response(connection).status)
    return statuses


async def test_unfinished_bodies_of_one_tenant_take_no_room_of_another(sim: Simulator, tmp_path: Path) -> None:
    size, share, file = 8 * MIB, 16 * MIB, tmp_path / "keys.jsonl"
    config = base_config(main={"url": sim.url, "models": [MODEL]})
    config["server"] |= {"max_body_bytes": size, "max_buffered_bytes": 4 * share}
    config["auth"] = {"mode": "keys", "keys_file": str(file)}
    first, second, other = (add_key(file, tenant=tenant).text for tenant in ("acme", "acme", "other"))
    with Gateway(config, tmp_path) as serving:
        async with unfinished(serving.http, 4, size, size - MIB, key=first):
            async with unfinished(serving.http, 2, size, size - MIB, key=second) as same:
                assert await asyncio.to_thread(answered, same) == [429, 429]
            async with unfinished(serving.http, 2, size, size - MIB, key=other) as others:
                assert await asyncio.to_thread(answered, others) == []


@pytest.mark.parametrize(("way", "user"), [("serve", ""), ("serve", "alice"), ("gateway", "")])
async def test_unfinished_bodies_of_one_client(sim: Simulator, tmp_path: Path, way: str, user: str) -> None:
    size, share = 8 * MIB, 64 * MIB
    limits = {"max_body_bytes": size, "max_buffered_bytes": 4 * share}
    config = base_config(main={"url": sim.url, "models": [MODEL]})
    config["server"] |= limits
    config["rate_limit"] = {"users": {"spent": {"rate": 0.001, "burst": 1}}}
    with contextlib.ExitStack() as stack:
        serving = stack.enter_context(Gateway(config, tmp_path))
        facade: Any = stack.enter_context(Facade(serving)) if way == "gateway" else serving
        before = resident(facade.pid)
        async with unfinished(facade.http, 30, size, size - MIB, user=user) as connections:
            statuses = await asyncio.to_thread(answered, connections)
            assert set(statuses) == {429}
            assert len(statuses) >= 30 - share // (size - MIB) - 1
            assert resident(facade.pid) - before < share + FEW
            if user:  # another user behind the same proxy has a share of its own
                async with unfinished(facade.http, 2, size, size - MIB, user="bob") as others:
                    assert await asyncio.to_thread(answered, others) == []
            # Small bodies of the same client, and calls of all others, are none the worse.
            small = json.dumps(chat(MODEL, 1, user="spent")).encode()
            assert (await asyncio.to_thread(wire.post, facade.http, CHAT, small)).status == 200
        await asyncio.to_thread(back, facade, before)
        # Limits of a user who is known are asked before the body is read, where the router is in the same process.
        if user:
            async with unfinished(facade.http, 2, size, 0, user="spent") as connections:
                assert sorted(await asyncio.to_thread(answered, connections)) == [429, 429]
        # There is room again: the engine's own word for so much text.
        whole = json.dumps(long_chat(size - 1000)).encode()
        answer = await asyncio.to_thread(wire.post, facade.http, CHAT, whole)
        assert (answer.status, answer.header("x-lexora-backend")) == (400, "main")
        await asyncio.to_thread(wire.wait_idle, serving.http)
