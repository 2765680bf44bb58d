"""Spans and instants as people write them: `90d`, `12h`, `2027-01-31`."""

import re
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MOST = timedelta(days=366 * 100)
_span = re.compile(r"([0-9]{1,8})([smhdw])").fullmatch


def span(text: str) -> timedelta:
    """A span such as `90d`: a whole number of s, m, h, d or w; 0 needs no unit. Raises typer.BadParameter."""
    if text == "0":
        return timedelta()
    found = _span(text.strip().lower())
    length = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
    if length is None or length > _MOST:
        raise typer.BadParameter("write a number and a unit of s, m, h, d or w, such as 90d or 12h")
    return length


def instant(text: str, now: datetime) -> datetime:
    """An instant as a span from now or as a date in ISO 8601, UTC where it names no zone. Raises typer.BadParameter."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now + span(text)
        except typer.BadParameter:
            raise typer.BadParameter("write a span such as 90d or 12h, or a date such as 2027-01-31") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
