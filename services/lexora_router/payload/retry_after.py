"""What an engine's `Retry-After` header asks for."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_LENGTH = 64
_SECONDS = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_DATE = re.compile(r"[A-Za-z]{3,9},? .*\d\d:\d\d:\d\d.*", re.ASCII)


def parse(value: str, now_unix: float) -> float | None:
    """Return the wait in seconds, never negative; None when the value says nothing.

    Seconds may have a fraction, as some servers send. A date (any of HTTP's three forms) is compared with `now_unix`, the
    seconds since 1970.
    """
    value = value.strip()
    if len(value) > MAX_LENGTH:
        return None
    seconds = _SECONDS.fullmatch(value)
    if seconds is not None:
        return 0.0 if seconds[1] == "-" else float(seconds[2])
    if _DATE.fullmatch(value) is None:
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # asctime's form has no zone; HTTP says that it is GMT
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - now_unix)
