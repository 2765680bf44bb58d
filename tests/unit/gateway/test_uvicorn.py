"""The facade reaches into uvicorn's protocol: whatever it uses of it must still be there when uvicorn is raised."""

from __future__ import annotations

import ast
import inspect
import tomllib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from tests.support.process import REPOSITORY
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from lexora_gateway import http10, serve
from lexora_gateway.http import protocol
from lexora_gateway.http.protocol import BoundedHttpProtocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


def uses(module: ModuleType | None, stored: bool = False) -> Iterator[tuple[str, str]]:
    """(what, attribute) for every attribute that the module takes of `self`, of `super` or of a request's `cycle`."""
    assert module is not None
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, ast.Attribute) or (stored and not isinstance(node.ctx, ast.Store)):
            continue
        match node.value:
            case ast.Call(func=ast.Name(id="super")):
                yield "super", node.attr
            case ast.Name(id="self"):
                yield "self", node.attr
            case ast.Name(id="cycle") | ast.Attribute(attr="cycle" | "_answering"):
                yield "cycle", node.attr


def test_the_names_that_are_used_are_there() -> None:
    used = set(uses(protocol)) | set(uses(http10))
    theirs = {name for _, name in uses(inspect.getmodule(HttpToolsProtocol), stored=True)}
    base = theirs | set(dir(HttpToolsProtocol))
    ours = (
        {name for _, name in uses(protocol, stored=True) if name.startswith("_")} | set(vars(BoundedHttpProtocol)) | {"_stall"}
    )
    assert {name for what, name in used if what == "super"} <= base
    # The three are those of _LingeringTransport.
    assert {name for what, name in used if what == "self"} - ours <= base | {"write", "close", "is_closing"}
    of_cycles = {name for what, name in used if what == "cycle"}
    assert {"disconnected", "expected_content_length"} <= of_cycles <= theirs | set(dir(RequestResponseCycle))
    assert {name for what, name in uses(serve) if what == "super"} <= set(dir(uvicorn.Server))


@pytest.mark.parametrize(
    "name", sorted(set(vars(BoundedHttpProtocol)) & set(vars(HttpToolsProtocol)) - {"__module__", "__doc__"})
)
def test_what_is_overridden_is_called_as_before(name: str) -> None:
    ours, theirs = getattr(BoundedHttpProtocol, name), getattr(HttpToolsProtocol, name)
    assert [*inspect.signature(ours).parameters] == [*inspect.signature(theirs).parameters]


def test_the_distribution_asks_for_the_uvicorn_that_was_tested() -> None:
    project: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    [asked] = [each for each in project["dependencies"] if each.startswith("uvicorn")]
    major, minor = version("uvicorn").split(".")[:2]
    assert asked == f"uvicorn>={major}.{minor},<{major}.{int(minor) + 1}"
