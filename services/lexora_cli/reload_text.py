"""What came of a reload, for people."""

from collections.abc import Iterator

from lexora.v1.reload_pb2 import (
    RELOAD_RESULT_APPLIED,
    RELOAD_RESULT_REFUSED,
    RELOAD_RESULT_UNCHANGED,
    ReloadReport,
)

_HEADLINES = {
    RELOAD_RESULT_APPLIED: "applied: the new configuration is in force",
    RELOAD_RESULT_UNCHANGED: "unchanged: nothing to put in force",
    RELOAD_RESULT_REFUSED: "refused: the old configuration stays in force",
}


def lines(report: ReloadReport) -> Iterator[str]:
    """The result, then problems, warnings and keys, one a line."""
    yield _HEADLINES.get(report.result, f"result {report.result}")
    waiting = set(report.keys_needing_restart)
    groups = (
        ("problem", report.problems),
        ("warning", report.warnings),
        ("changed", [key for key in report.changed_keys if key not in waiting]),
        ("needs a restart", report.keys_needing_restart),
    )
    for title, found in groups:
        for each in found:
            yield f"  {title}: {each}"


def summary(report: ReloadReport) -> str:
    """The last reload and the counts of all, in one line."""
    result = _HEADLINES.get(report.result, "").partition(":")[0]
    problems = f" (problems: {len(report.problems)})" if report.problems else ""
    return f"{result} by {report.trigger}{problems}; {report.good_reloads:,} good, {report.bad_reloads:,} refused in all"
