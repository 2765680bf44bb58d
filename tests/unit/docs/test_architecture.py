"""The picture of the house is the one that import-linter holds."""

import re
import tomllib

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
