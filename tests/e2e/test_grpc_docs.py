"""docs/grpc.md: each example runs as it stands, against real processes, and prints what the page shows."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import REPOSITORY
from tests.support.servers import Gateway, Simulator, base_config

TEXT = (REPOSITORY / "docs/grpc.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^## (.+?)$(?:(?!^## ).)*?^```python\n(.*?)^```\n\n```console\n(.*?)^```", TEXT, re.M | re.S)

# README's own example; the demo's backend has another name.
README = re.search(
    r"^```python\n(from lexora\.client.*?)^```\n\n```console\n\$.*?\n(.*?)^```",
    (REPOSITORY / "README.md").read_text("utf-8"),
    re.M | re.S,
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Simulator("--embedding-model", "bge-m3") as engine:
        config = base_config(main={"url": engine.url, "models": ["qwen3-32b", "bge-m3"]})
        config["routing"]["strict_models"] = True
        with Gateway(config, tmp_path_factory.mktemp("gateway")) as gateway:
            yield gateway.grpc


def test_every_block_is_an_example() -> None:
    assert len(EXAMPLES) == TEXT.count("```python") == TEXT.count("```console") == 9


def test_the_example_of_the_readme_prints_what_is_shown(address: str, tmp_path: Path) -> None:
    assert README is not None
    test_the_example_prints_what_is_shown(address, README[1], README[2].replace("demo,", "main,"), tmp_path)


@pytest.mark.parametrize(("code", "shown"), [example[1:] for example in EXAMPLES], ids=[name for name, *_ in EXAMPLES])
def test_the_example_prints_what_is_shown(address: str, code: str, shown: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(code.replace("127.0.0.1:50051", address), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], check=False, capture_output=True, text=True, encoding="utf-8", timeout=60
    )
    assert done.stderr == ""
    assert done.stdout == shown
