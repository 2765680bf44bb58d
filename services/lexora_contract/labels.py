"""The labels that a client gives its call, for log, recent calls and spans."""

import re
from collections.abc import Sequence

from lexora_contract.limits import MAX_LABEL, MAX_LABEL_KEY, MAX_LABELS

Labels = tuple[tuple[str, str], ...]  # key and value, each key once

_KEY = re.compile(rf"[a-z0-9_.-]{{1,{MAX_LABEL_KEY}}}")


def labels_fault(labels: Sequence[tuple[str, str]]) -> str:
    """What is wrong with labels, in words that follow their name; empty for nothing."""
    if len(labels) > MAX_LABELS:
        return f"takes at most {MAX_LABELS} labels."
    for key, value in labels:
        if not _KEY.fullmatch(key):
            return f"takes keys of 1 to {MAX_LABEL_KEY} of a-z, 0-9, `_`, `.` and `-`; {_shown(key)} is none."
        if len(value) > MAX_LABEL or not value.isprintable():
            return f"takes values of at most {MAX_LABEL} printable characters; that of `{key}` is none."
    if len({key for key, _ in labels}) < len(labels):
        return "takes each key once."
    return ""


def _shown(key: str) -> str:
    return f"{key[:MAX_LABEL_KEY]!a}"
