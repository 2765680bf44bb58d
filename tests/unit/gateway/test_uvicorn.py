"""The facade's own connections stand on a few names of uvicorn's server: they must still be there when uvicorn is raised."""

from __future__ import annotations

import ast
import inspect
import tomllib
from importlib.metadata import version
from typing import Any

import uvicorn
from tests.support.process import REPOSITORY
from tests.unit.gateway.support import ScriptedRouter, connected, make_app, port_of, running
from uvicorn.server import ServerState

from lexora_gateway import serve
from lexora_gateway.http import protocol, turns


def names_of(module: Any, owner: str) -> set[str]:
    """Attributes that the module takes of something of this name."""
    nodes = ast.walk(ast.parse(inspect.getsource(module)))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) in (owner, f"{owner}()")}


def test_the_names_that_are_used_are_there() -> None:
    used = names_of(protocol, "self._state") | names_of(turns, "self._state")
    assert used == {"connections", "default_headers", "tasks", "total_requests"} <= set(vars(ServerState()))
    assert {"startup", "shutdown"} <= names_of(serve, "super") <= {*dir(uvicorn.Server), "__init__"}


def test_the_server_asks_of_a_connection_what_it_has() -> None:
    asked = names_of(inspect.getmodule(uvicorn.Server), "connection")
    assert asked == {"shutdown"} <= set(dir(protocol.HttpProtocol))


async def test_the_server_makes_its_connections_of_ours_and_dates_their_answers() -> None:
    async with running(make_app(ScriptedRouter())) as server, connected(port_of(server)) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"\r\ndate: " in await reader.readuntil(b"\r\n\r\n")
        [connection] = server.server_state.connections
        assert isinstance(connection, protocol.HttpProtocol)
        assert server.server_state.total_requests == 1


def test_the_distribution_asks_for_the_uvicorn_that_was_tested() -> None:
    project: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    [asked] = [each for each in project["dependencies"] if each.startswith("uvicorn")]
    major, minor = version("uvicorn").split(".")[:2]
    assert asked == f"uvicorn>={major}.{minor},<{major}.{int(minor) + 1}"
