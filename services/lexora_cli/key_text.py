"""Keys for people, and as plain data."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from lexora_router.access.key_record import KeyRecord

if TYPE_CHECKING:
    from rich.text import Text

_COLOURS = {"valid": "green", "expired": "yellow", "revoked": "red"}
_LIMITS = ("rate", "burst", "tokens_per_minute", "max_concurrent", "priority", "max_priority")


def data(record: KeyRecord, now: datetime) -> dict[str, Any]:
    """A key for JSON, without its hash."""
    found: dict[str, Any] = msgspec.to_builtins(record)
    del found["sha256"]
    defaults: dict[str, Any] = {"scopes": [scope.value for scope in record.scopes], "models": [], "operations": []}
    return defaults | found | {"state": record.state(now)}


def table(records: Sequence[KeyRecord], now: datetime) -> "list[Text]":
    """A line for each key."""
    from lexora_cli.columns import columns  # noqa: PLC0415 - start-up time

    return columns(("id", "name", "tenant", "scopes", "state", "expires", "models"), _rows(records, now))


def _rows(records: Iterable[KeyRecord], now: datetime) -> "Iterator[tuple[str | Text, ...]]":
    from rich.text import Text  # noqa: PLC0415 - start-up time

    for each in records:
        state = each.state(now)
        yield (
            each.id,
            each.name,
            each.tenant,
            ", ".join(each.scopes),
            Text(state, _COLOURS[state]),
            day(each.expires),
            ", ".join(each.models) or "all",
        )


def lines(record: KeyRecord, now: datetime) -> Iterator[str]:
    """All that is known of a key, one a line."""
    facts = {
        "id": record.id,
        "name": record.name,
        "tenant": record.tenant,
        "state": record.state(now),
        "scopes": ", ".join(record.scopes),
        "models": ", ".join(record.models) or "all",
        "operations": ", ".join(record.operations) or "all",
        **{name.replace("_", " "): getattr(record, name) for name in _LIMITS if getattr(record, name) is not None},
        "created": day(record.created),
        "expires": day(record.expires),
    }
    if record.revoked is not None:
        facts["revoked"] = day(record.revoked)
    if record.rotated_from is not None:
        facts["in the place of"] = record.rotated_from
    width = max(map(len, facts))
    for name, value in facts.items():
        yield f"{name:<{width}}  {value}"


def day(time: datetime | None) -> str:
    """An instant in ISO 8601, `never` for none."""
    return "never" if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")
