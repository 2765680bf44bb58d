from datetime import UTC, datetime, timedelta

import pytest
import typer

from lexora_cli.time_options import instant, span

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "hours"), [("90d", 90 * 24), ("12h", 12), ("30m", 0.5), ("2w", 336), ("3600s", 1), ("0", 0), (" 1D ", 24)]
)
def test_spans(text: str, hours: float) -> None:
    assert span(text) == timedelta(hours=hours)
    assert instant(text, NOW) == NOW + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T06:00:00+01:00", datetime(2027, 1, 31, 5, tzinfo=UTC)),
        ("2027-01-31T06:00:00Z", datetime(2027, 1, 31, 6, tzinfo=UTC)),
    ],
)
def test_dates(text: str, found: datetime) -> None:
    assert instant(text, NOW) == found


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1.5h", "1y", "999999999w", "tomorrow"])
def test_nonsense(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="such as 90d"):
        span(text)
    with pytest.raises(typer.BadParameter, match="such as 90d"):
        instant(text, NOW)
