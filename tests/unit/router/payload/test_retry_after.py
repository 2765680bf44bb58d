from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.payload.retry_after import parse

NOW = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("0.25", 0.25),
        (".5", 0.5),
        ("3.", 3),
        ("+2", 2),
        ("-5", 0),
        ("-0.1", 0),
        ("Sun, 22 Nov 2026 10:01:30 GMT", 90),
        ("Sunday, 22-Nov-26 10:01:30 GMT", 90),
        ("Sun Nov 22 10:01:30 2026", 90),
        ("Sun, 22 Nov 2026 09:00:00 GMT", 0),
        ("Sun, 22 Nov 2026 12:00:10 +0200", 10),
    ],
)
def test_seconds_and_dates(value: str, seconds: float) -> None:
    assert parse(value, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *["", " ", "soon", "1s", "1e3", "0x10", "inf", "nan", "--1", "1 2", "1,5", "٣", "9" * 65],
        *["Sun, 22 Nov 2026", "Sun, 99 Nov 2026 10:00:00 GMT", "Sun, 22 Foo 2026 10:00:00 GMT"],
        *["10:00:00", "tomorrow 12:00:00"],
    ],
)
def test_what_says_nothing_is_none(value: str) -> None:
    assert parse(value, NOW) is None


pieces = st.sampled_from(["Sun,", "Mon", "22", "-99", "Nov", "2026", "99999", "10:00:00", "25:61:61", "GMT", "+9999", "-", " "])


@given(st.one_of(st.text(max_size=80), st.lists(pieces, max_size=8).map(" ".join)))
def test_nothing_that_an_engine_sends_raises(value: str) -> None:
    wait = parse(value, NOW)
    assert wait is None or 0 <= wait < float("inf")
