"""What is particular about a family of engines is said by its adapter, and asked nowhere else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.process import REPOSITORY
from tests.unit.docs.pages import page

from lexora_router.adapters import ADAPTERS, DEFAULT, family_of, types_where
from lexora_router.config import BackendConfig
from lexora_router.config.shape import at

PACKAGES = ("services/lexora_router", "services/lexora_cli", "gateway/lexora_gateway", "services/lexora_contract")


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (file for file in (REPOSITORY / package).rglob("*.py") if "adapters" not in file.parts)


def compared(tree: ast.AST) -> Iterator[object]:
    """Every constant that something is compared with, alone or as one of several."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=others):
                for side in (left, *others):
                    yield from (each.value for each in getattr(side, "elts", [side]) if isinstance(each, ast.Constant))
            case ast.MatchValue(value=ast.Constant(value=value)):
                yield value


def test_no_code_asks_for_the_type_of_a_backend() -> None:
    section = REPOSITORY / "services/lexora_router/config/warn.py"  # compares paths of keys, of which `vllm` is one
    found = [
        (str(file), value)
        for file in sources()
        if file != section
        for value in compared(ast.parse(file.read_text()))
        if isinstance(value, str) and value in ADAPTERS
    ]
    assert found == []


def test_the_configuration_takes_the_types_of_the_table() -> None:
    form = at(("routing", "backends", "main", "type"))
    assert form is not None
    assert form.choices == tuple(ADAPTERS)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_type_is_documented(name: str) -> None:
    assert f"`{name}`" in page("docs/configuration.md").text
    assert f"`{ADAPTERS[name].provider}`" in page("docs/operations.md").text


def test_defaults_are_the_family_s() -> None:
    for name, family in ADAPTERS.items():
        azure = {"api": "v1"} if family.section else None
        config = BackendConfig.model_validate({"url": "http://e:1", "type": name, "azure": azure})
        assert isinstance(config.adapter({}), family)
        assert config.health_path == family.default_health_path
        assert config.max_concurrency == family.default_max_concurrency


def test_the_older_way_to_say_azure() -> None:
    assert family_of({"type": "openai_compatible", "azure": {}}) is ADAPTERS["azure"]
    assert family_of({"type": "openai_compatible", "azure": None}) is ADAPTERS["openai_compatible"]
    assert family_of({}) is ADAPTERS[DEFAULT]
    assert family_of({"type": "nothing"}) is None


def test_abilities_are_named_by_the_types_that_have_them() -> None:
    assert types_where("load_metrics").split(" or ")[0] == "vllm"
    assert types_where("continues_text").startswith("vllm or openai_compatible or ")
