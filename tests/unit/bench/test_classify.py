"""The labelled tasks are what they are said to be, and the report counts right."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.bench.classify import LANGUAGES, LEVELS, Outcome, Task, main, mistakes, read_rows, report, tasks

CAPABILITIES = {"code", "reasoning", "translation", "summarization", "creative", "extraction", "vision", "general"}


def test_the_labelled_tasks_are_many_and_even() -> None:
    given = tasks()
    assert len(given) >= 120
    assert len({task.task for task in given}) == len(given)
    counts = Counter((task.capability, task.language) for task in given)
    assert set(counts) == {(capability, language) for capability in CAPABILITIES for language in LANGUAGES}
    assert min(counts.values()) >= 12
    assert {task.level for task in given} == set(LEVELS)
    assert all(any(ord(sign) > 0x3000 for sign in task.task) for task in given if task.language == "ja")


def test_the_examples_are_kept_apart_from_the_tasks() -> None:
    rows = read_rows("classify_examples.jsonl")
    assert {row["capability"] for row in rows} == CAPABILITIES
    assert {row["text"] for row in rows}.isdisjoint(task.task for task in tasks())


def test_the_report_counts_right() -> None:
    said = {"code": "code", "vision": "code", "general": ""}
    outcomes = [Outcome(Task(f"task {kind}", kind, "en", "plain"), what, 0.001, 0.0001) for kind, what in said.items()]
    head, line = report({"rules": outcomes}).splitlines()
    figures = dict(zip(head.replace("ms p", "ms_p").replace("again p", "again_p").split(), line.split(), strict=True))
    assert (figures["accuracy"], figures["coverage"], figures["precision"]) == ("33.3%", "66.7%", "50.0%")
    assert (figures["en"], figures["ja"], figures["hard"], figures["ms_p50"]) == ("33.3%", "0.0%", "0.0%", "1.00")
    assert mistakes({"rules": outcomes}) == "rules: vision taken for code: task vision"


def test_it_says_what_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "rules"]) == 0
    shown = capsys.readouterr().out
    assert "simulated" not in shown
    [line] = [line for line in shown.splitlines() if line.startswith("rules")]
    accuracy, coverage = (float(word.rstrip("%")) for word in line.split()[1:3])
    assert 20 < accuracy < coverage < 40  # what they abstain on is no answer
