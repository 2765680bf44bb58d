"""Lists the licences of everything in deploy/requirements.lock, as deploy/licences.md: python tools/licences.py

Run it where all of it is installed (.venv). A package whose metadata names no licence ends it.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "deploy" / "requirements.lock"
PAGE = ROOT / "deploy" / "licences.md"
HEAD = """# Licences

Of the packages in [requirements.lock](requirements.lock), as each names its own. Made by `make lock`.

| package | version | licence |
|---|---|---|
"""
_CLASSIFIER = "License :: OSI Approved :: "


def locked() -> dict[str, str]:
    """Versions by name."""
    return dict(re.findall(r"(?m)^([a-z0-9._-]+)==([^\s;\\]+)", LOCK.read_text(encoding="utf-8")))


def licence(package: str) -> str:
    """What a package says of itself: the SPDX expression, else its classifiers, else a short text."""
    said = metadata(package)
    found = said.get("License-Expression") or ""
    if not found:
        kinds = [value.removeprefix(_CLASSIFIER) for value in said.get_all("Classifier") or () if value.startswith(_CLASSIFIER)]
        text = (said.get("License") or "").strip().partition("\n")[0]
        found = text if text and len(text) <= 40 else ", ".join(kinds)
    return found


def table() -> str:
    """The page."""
    rows = []
    for package, version in sorted(locked().items()):
        try:
            found = licence(package)
        except PackageNotFoundError:
            found = ABSENT.get(package, "")
        if not found:
            sys.exit(f"{package} names no licence: look it up, and add it to ABSENT")
        rows.append(f"| {package} | {version} | {found} |")
    return HEAD + "\n".join(rows) + "\n"


# What is not installed on the platform on which the page is made.
ABSENT = {"colorama": "BSD-3-Clause", "exceptiongroup": "MIT", "async-timeout": "Apache-2.0"}

if __name__ == "__main__":
    PAGE.write_text(table(), encoding="utf-8")
