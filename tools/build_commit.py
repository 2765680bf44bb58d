"""Writes the commit into the wheel and the sdist: SOURCE_COMMIT, or the one that is checked out. Without either there is none.

A hook of hatchling. A wheel that is built from an sdist has the commit that the sdist was built from.
"""

import os
import runpy
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PLACES = {"wheel": "lexora_router/commit.txt", "sdist": "services/lexora_router/commit.txt"}


class CommitHook(BuildHookInterface[Any]):
    """The hook."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file, unless the build is editable: then the checkout is asked at run time."""
        room = Path(self.root) / "services" / "lexora_router"
        commit = os.environ.get("SOURCE_COMMIT") or runpy.run_path(str(room / "version.py"))["commit"]()
        if version == "editable" or not commit or (room / "commit.txt").exists():
            return
        with NamedTemporaryFile("w", prefix="lexora-commit-", delete=False) as file:
            file.write(f"{commit}\n")
        self._file = file.name
        build_data["force_include"][file.name] = PLACES[self.target_name]

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made for the build."""
        file = getattr(self, "_file", "")
        if file:
            Path(file).unlink()
