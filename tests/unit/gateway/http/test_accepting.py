"""New clients are taken together, in few turns of the event loop, and those whose requests are not read yet make no room."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
import uvloop
from tests.unit.gateway.support import ScriptedRouter, make_app

from lexora_gateway.http.accepting import MOST_PER_TURN
from lexora_gateway.http.connections import MAX_LINGERING, Connections
from lexora_gateway.serve import GatewayServer, server_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

CLIENTS = 200
TURNS = 40  # one for every 32 of them, those in which they become connections, and some of the server itself
ROOM = 20
ASK = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """uvloop's: that of asyncio takes all that wait."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as made:
        yield made


@contextlib.asynccontextmanager
async def serving(connections: Connections) -> AsyncIterator[tuple[GatewayServer, socket.socket]]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2 * CLIENTS)
    listener.setblocking(False)
    ready = asyncio.Event()
    config = server_config(make_app(ScriptedRouter()), host="127.0.0.1", port=0, connections=connections)
    server = GatewayServer(config, lambda _: ready.set())
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await ready.wait()
    try:
        yield server, listener
    finally:
        server.should_exit = True
        await task
    assert not server.server_state.connections


async def turns_until_taken() -> int:
    """So many turns of the event loop until each of the clients that come at once has a connection."""
    connections = Connections()
    async with serving(connections) as (server, listener):
        with contextlib.ExitStack() as clients:
            for _ in range(CLIENTS):
                clients.enter_context(socket.create_connection(listener.getsockname()))
            turns = 0
            while connections.open < CLIENTS and turns < 10 * CLIENTS:
                await asyncio.sleep(0)
                turns += 1
            assert connections.open == CLIENTS
            made = [each.transport.get_extra_info("socket") for each in server.server_state.connections]  # type: ignore[union-attr]
            assert {each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in made} == {1}
        return turns


async def statuses_of_a_crowd() -> list[bytes]:
    """What clients hear that connect and ask before the server has its next turn; more of them than it has room for."""
    async with serving(Connections(ROOM)) as (_, listener):
        with contextlib.ExitStack() as clients:
            asked = []
            for _ in range(ROOM + MAX_LINGERING):
                client = clients.enter_context(socket.create_connection(listener.getsockname()))
                client.sendall(ASK)
                client.setblocking(False)
                asked.append(client)
            loop = asyncio.get_running_loop()
            return [(await loop.sock_recv(client, 65536))[:12] for client in asked]


def test_clients_that_come_at_once_are_taken_in_few_turns(runner: asyncio.Runner) -> None:
    assert CLIENTS > 3 * MOST_PER_TURN
    turns = runner.run(turns_until_taken())
    assert turns < TURNS


def test_each_of_a_crowd_gets_an_answer(runner: asyncio.Runner) -> None:
    statuses = runner.run(statuses_of_a_crowd())
    assert set(statuses) <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
    assert statuses.count(b"HTTP/1.1 200") >= ROOM
