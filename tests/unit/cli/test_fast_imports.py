"""What a serving process imports, as sets of modules: they say more than seconds, and always the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.process import Process
from tests.support.servers import LEXORA, base_config, write_config

# For terminals, for clients, for tests: none of it serves a call.
USELESS = {
    "aiohttp",
    "anthropic",
    "httpcore",
    "httpx",
    "lexora_sim",
    "openai",
    "opentelemetry.sdk",
    "playwright",
    "pygments",
    "rich",
    "valkey",
}


@pytest.mark.parametrize("command", [["serve"], ["router"], ["gateway", "--router", "127.0.0.1:1"]])
def test_a_serving_process_imports_what_serves(command: list[str], tmp_path: Path) -> None:
    file = write_config(base_config(main={"url": "http://127.0.0.1:1"}), tmp_path)
    with Process([*LEXORA, *command, "--config", str(file)], env={"PYTHONPROFILEIMPORTTIME": "1"}, fresh=True) as process:
        process.wait_for(r"\bserving\b")
        loaded = set(re.findall(r"\| +([\w.]+)$", process.output, re.MULTILINE))
    assert "lexora_router.config.models" in loaded
    # An import that fails is in the list as well; of one that succeeds there are submodules.
    assert not {package for package in USELESS for name in loaded if name.startswith(f"{package}.")}


def test_after_the_imports_all_is_as_before() -> None:
    code = """
import gc
from lexora_cli.fast_imports import fast_imports
with fast_imports():
    assert not gc.isenabled()
    try:
        import rich
    except ImportError:
        import json
assert gc.isenabled() and gc.get_freeze_count() > 1000
import rich
with fast_imports():
    import rich
"""
    subprocess.run([sys.executable, "-c", code], check=True)
