"""What came of a reload, for people."""

from collections.abc import Iterator

from lexora.v1.reload_pb2 import (
    RELOAD_RESULT_APPLIED,
    RELOAD_RESULT_REFUSED,
    RELOAD_RESULT_UNCHANGED,
    RELOAD_TRIGGER_FILE,
    RELOAD_TRIGGER_RPC,
    RELOAD_TRIGGER_SIGNAL,
    ReloadReport,
    ReloadTrigger,
)
from lexora_contract.enums import word

_HEADLINES = {
    RELOAD_RESULT_APPLIED: "applied: the new configuration is in force",
    RELOAD_RESULT_UNCHANGED: "unchanged: nothing to put in force",
    RELOAD_RESULT_REFUSED: "refused: the old configuration stays in force",
}


# After a change of the file this is a surprise: another reload was quicker.
_JUST_NOW_SECONDS = 60
_TRIGGERS = {
    RELOAD_TRIGGER_FILE: "when the file changed",
    RELOAD_TRIGGER_SIGNAL: "on SIGHUP",
    RELOAD_TRIGGER_RPC: "by another `lexora reload`",
}


def lines(report: ReloadReport, before: ReloadReport) -> Iterator[str]:
    """The result, then problems, warnings and keys, one a line. `before` is the reload before it, empty for none."""
    ago = report.finish_time.seconds - before.finish_time.seconds
    if report.result == RELOAD_RESULT_UNCHANGED and before.result == RELOAD_RESULT_APPLIED and ago <= _JUST_NOW_SECONDS:
        when = _TRIGGERS.get(before.trigger, f"by {word(ReloadTrigger, before.trigger)}")
        yield f"unchanged: it was put in force {max(ago, 0)} s ago already, {when}"
        report = before
    else:
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
    by = word(ReloadTrigger, report.trigger)
    return f"{result} by {by}{problems}; {report.good_reloads:,} good, {report.bad_reloads:,} refused in all"
