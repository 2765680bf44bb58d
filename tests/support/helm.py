"""The chart of deploy/helm, rendered by Helm's own library; `python -m tests.support.helm` writes what is expected of it."""

import re
from pathlib import Path
from typing import Any

import yaml
from helm_python.chart import Chart

from tests.support.process import REPOSITORY

CHART = REPOSITORY / "deploy" / "helm" / "lexora"
EXPECTED = REPOSITORY / "tests" / "data" / "helm"
CASES = ("small", "production", "secured")
NAMESPACE = "llm"
_RULES = re.compile(r"(?ms)(?<=^  groups:$).*")
_DASHBOARD = re.compile(r"(?m)^(  lexora-(\w+\.json)): \|\n(?:    .*\n?)+")


def values(case: str) -> dict[str, Any]:
    """The values of a case."""
    return dict(yaml.safe_load((CHART / "ci" / f"{case}-values.yaml").read_text()))


def render(given: dict[str, Any], chart: Chart | None = None) -> dict[str, str]:
    """Texts by the name of their template. Raises HelmError for values that are refused."""
    made = (chart or Chart.load(CHART)).render(given, name="lexora", namespace=NAMESPACE)
    return {name.removeprefix("lexora/templates/"): text for name, text in sorted(made.items()) if text.strip()}


def manifests(rendered: dict[str, str]) -> list[dict[str, Any]]:
    """What would be sent to the cluster."""
    texts = [text for name, text in rendered.items() if name != "NOTES.txt"]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def kind(documents: list[dict[str, Any]], wanted: str, name: str = "lexora") -> dict[str, Any]:
    """The one manifest of this kind and name."""
    [found] = [each for each in documents if (each["kind"], each["metadata"]["name"]) == (wanted, name)]
    return found


def as_expected(rendered: dict[str, str]) -> str:
    """All of it in one text, but for dashboards and rules, which are files of their own."""
    texts = ((name, _RULES.sub("", _DASHBOARD.sub(r"\1: the file \2", text)).strip()) for name, text in rendered.items())
    return "".join(f"# {name}\n{text}\n\n" for name, text in texts)


if __name__ == "__main__":
    EXPECTED.mkdir(exist_ok=True)
    for each in CASES:
        Path(EXPECTED / f"{each}.yaml").write_text(as_expected(render(values(each))))
