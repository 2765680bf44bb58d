"""The picture of the house is the one that import-linter holds."""

import ast
import re
import tomllib
from pathlib import Path

from tests.unit.docs.pages import ROOT, page

# Files that are no rooms: the start of a module as a program, and a constant.
NOT_DRAWN = {"__main__", "version"}


def test_the_rooms_of_the_router_stand_as_they_may_import_each_other() -> None:
    picture = next(text for language, text in page("docs/architecture.md").blocks if language == "text")
    drawn = [set(re.split(r"[,\s]+", found.strip())) for found in re.findall(r"│ ([a-z][a-z, ]*)│", picture)]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (inside,) = [contract["layers"] for contract in contracts if contract["name"] == "inside the router"]
    held = [set(line.split(" | ")) - NOT_DRAWN for line in inside]
    assert drawn == [line for line in held if line]


def test_every_package_is_in_the_picture() -> None:
    picture = next(text for language, text in page("docs/architecture.md").blocks if language == "text")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert all(re.search(rf"\b{re.escape(package)}\b", picture) for package in contracts["root_packages"])


def defined(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return found


def test_the_functions_on_the_way_of_a_credential_are_there() -> None:
    named = [
        found
        for span in page("docs/architecture.md").spans
        if (found := re.fullmatch(r"(lexora_\w+/[\w/]+\.py):([\w.]+)", span))
    ]
    assert len(named) >= 10
    for found in named:
        (path,) = [root / found[1] for root in (ROOT / "services", ROOT / "gateway") if (root / found[1]).exists()]
        assert found[2] in defined(path), found[0]
