"""The lock file has all that the runtime needs, as new as it needs it and with hashes; its licences are listed."""

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tests.support.process import REPOSITORY

LOCK = (REPOSITORY / "deploy" / "requirements.lock").read_text(encoding="utf-8")
PAGE = (REPOSITORY / "deploy" / "licences.md").read_text(encoding="utf-8")
BLOCKS = re.split(r"(?m)^(?=[a-z0-9])", LOCK)[1:]
VERSIONS = {match[1]: match[2] for block in BLOCKS if (match := re.match(r"([a-z0-9._-]+)==([^\s;\\]+)", block))}


def test_an_audit_that_could_not_ask_is_no_good_one() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    assert "pip-audit --strict" in makefile  # else what no advisory was found for counts as sound


def test_every_package_is_pinned_with_hashes() -> None:
    assert len(VERSIONS) == len(BLOCKS) > 40
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", block) for block in BLOCKS)
    assert "://" not in LOCK


def test_it_has_what_the_runtime_needs() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["otel"])]
    for each in needed:
        name = canonicalize_name(each.name)
        assert name in VERSIONS, f"{name} is not locked: make lock"
        assert each.specifier.contains(Version(VERSIONS[name]), prereleases=True), f"{name} {VERSIONS[name]}: make lock"


def test_licences_are_listed_and_bind_nothing_else() -> None:
    rows = {row[1]: (row[2], row[3]) for row in re.finditer(r"(?m)^\| ([a-z0-9._-]+) \| (\S+) \| ([^|]+) \|$", PAGE)}
    rows.pop("package", None)
    assert {name: version for name, (version, _) in rows.items()} == VERSIONS
    assert [name for name, (_, licence) in rows.items() if re.search(r"\bA?GPL|SSPL|BUSL|Commons Clause", licence)] == []
