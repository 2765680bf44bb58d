"""The dashboards: what the generator writes, in PromQL that Prometheus can parse."""

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.process import REPOSITORY
from tests.support.promtool import PROMTOOL, needs_promtool

FOLDER = REPOSITORY / "deploy" / "grafana"
FILES = sorted(FOLDER.glob("*.json"))
# As Grafana fills them in.
VARIABLES = {"$__rate_interval": "1m", "$job": ".*", "$backend": ".*"}


def document(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def expressions(path: Path) -> list[str]:
    found = [target["expr"] for panel in document(path)["panels"] for target in panel["targets"]]
    for name, value in VARIABLES.items():
        found = [text.replace(name, value) for text in found]
    return found


def test_the_files_are_what_the_generator_writes() -> None:
    spec = importlib.util.spec_from_file_location("dashboards", REPOSITORY / "tools" / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert {path.name: path.read_text() for path in FILES} == module.documents(), "run: python tools/dashboards.py"


@needs_promtool
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_expression_parses(path: Path, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions(path))]
    assert rules
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([PROMTOOL, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_variable_is_left_and_panels_do_not_overlap(path: Path) -> None:
    assert not [text for text in expressions(path) if "$" in text]
    taken: set[tuple[int, int]] = set()
    for panel in document(path)["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_dashboards_can_be_told_apart() -> None:
    assert len({document(path)["uid"] for path in FILES}) == len(FILES) == 2
