"""The example file and the page about the configuration say what the models say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.fields import FieldInfo

from lexora_router.config import BackendConfig, Config
from lexora_router.config.load import dump, load
from lexora_router.config.shape import ROOT as ROOT_SHAPE
from lexora_router.config.shape import leaves, shape
from lexora_router.process.reload import RESTART_KEYS

ROOT = Path(__file__).parents[4]
EXAMPLE = ROOT / "config" / "lexora_config.yaml"
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
PATHS = [path for path, _ in leaves()]
# A key that is switched off begins with a "#" and no space.
FOUND = {"pods", "services", "machines", "cluster"}  # backends of the example whose engines are discovered
SWITCHED_ON = re.sub(r"(?m)^(\s*)#(?=[a-z_-])", r"\1", EXAMPLE.read_text(encoding="utf-8"))


def name(path: tuple[str, ...]) -> str:
    return ".".join(path).replace("*", "NAME").replace(".[]", "[]")


def field(path: tuple[str, ...]) -> FieldInfo:
    form = ROOT_SHAPE
    found = FieldInfo()
    for key in path:
        if key in ("*", "[]"):
            form = shape(form.item)
        else:
            found = form.kind.model_fields[key]  # type: ignore[attr-defined] # the walk ends at keys of sections
            form = shape(found.annotation)
    return found


def values(data: Any, path: tuple[str, ...]) -> list[Any]:
    """Everything that the data has at a path, under whatever names."""
    if not path:
        return [data]
    if path[0] == "*":
        below = list(data.values())
    elif path[0] == "[]":
        below = [item for item in data if isinstance(item, dict)]
    else:
        below = [data[path[0]]] if isinstance(data, dict) and path[0] in data else []
    return [value for item in below for value in values(item, path[1:])]


def test_the_walk_finds_every_kind_of_key() -> None:
    assert ("server", "port") in PATHS
    assert ("routing", "backends", "*", "azure", "api_version") in PATHS
    assert ("routing", "backends", "*", "models", "[]", "max_model_len") in PATHS
    assert ("routing", "backends", "*", "queue", "aging") in PATHS
    assert ("rate_limit", "users", "*", "tier") in PATHS
    assert ("tenants", "*", "weight") in PATHS
    assert len(PATHS) == len(set(PATHS)) > 100


def test_the_example_file_changes_nothing_as_it_stands() -> None:
    assert load(str(EXAMPLE), {}).config == Config()
    # It is found in a clone, where the README says that one variable is enough.
    result = load(str(EXAMPLE), {"LEXORA_VLLM__URL": "http://gpu1:8000"})
    assert result.config.backends()["vllm"].endpoints == ("http://gpu1:8000",)
    assert result.warnings == ()


def test_the_backend_of_the_example_file_has_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(SWITCHED_ON, encoding="utf-8")
    main = load(str(file), {}).config.backends()["main"]
    free: dict[str, Any] = {"models": (), "model_mapping": {}, "fallback_backends": (), "fallback_models": {}, "queue": None}
    assert main.model_copy(update=free) == BackendConfig(url="http://localhost:8000")


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_the_example_file_has_every_key_with_its_default(path: tuple[str, ...]) -> None:
    found = values(yaml.safe_load(SWITCHED_ON), path)
    assert found, "the key is missing"
    info = field(path)
    shown = path[-1] in ("rules", "examples", "words", "patterns")  # lists that need an item to be understood
    free = info.is_required() or shown or "backends" in path or "jwt" in path or path == ("routing", "default_backend")
    default = list(info.default) if isinstance(info.default, tuple) else info.default
    assert free or found == [default]


def test_the_example_file_has_no_other_keys(tmp_path: Path) -> None:
    known = {key for path in PATHS for key in path}
    keys = set(re.findall(r"(?m)^\s*#?(?:- )?([a-z_]+):", EXAMPLE.read_text(encoding="utf-8")))
    assert keys - known == {"main", "openai_backup", "claude", "batch", "gold", "alice", *FOUND}
    commented = tmp_path / "c.yaml"
    commented.write_text(SWITCHED_ON, encoding="utf-8")
    config = load(str(commented), {"OPENAI_API_KEY": "k", "AZURE_OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}).config
    assert set(config.backends()) == {"main", "openai_backup", "claude", "azure", *FOUND}
    assert set(config.tenants) == {"batch"}
    assert set(config.rate_limit.tiers) | set(config.rate_limit.users) == {"gold", "alice"}


def rows() -> dict[str, list[str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert all(len(row) == 4 for row in cells)
    found = {row[0].strip("`"): row[1:] for row in cells}
    assert len(found) == len(cells)
    return found


def test_the_page_has_exactly_the_keys_of_the_models() -> None:
    assert sorted(rows()) == sorted(map(name, PATHS))


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_the_page_has_the_default_the_variable_and_a_meaning(path: tuple[str, ...]) -> None:
    default, variable, meaning = rows()[name(path)]
    info = field(path)
    if info.is_required():
        assert default == "required"
    elif info.default_factory is None:
        value = info.default
        assert default.strip("`") == (value if isinstance(value, str) and value else json.dumps(value))
    expected = "–" if "[]" in path else "`LEXORA_" + "__".join(path).replace("*", "NAME").upper() + "`"
    assert variable == expected
    assert meaning


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_of_the_page_load(example: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(example, encoding="utf-8")
    result = load(str(file), {"OPENAI_API_KEY": "k", "AZURE_OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"})
    assert result.warnings == ()
    assert result.config.backends()
    assert yaml.safe_load(dump(result.config))


def test_the_page_names_the_keys_that_need_a_restart() -> None:
    section = PAGE.split("These keys are read at the start only.")[1].split("```")[0]
    assert set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", section)) == RESTART_KEYS
