"""What a fault is and how it is written: `KIND[;key=value...]`."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = (
    "refuse",
    "reset",
    "status",
    "hang",
    "hang_headers",
    "die_after",
    "freeze_after",
    "drip",
    "split",
    "malformed",
    "html",
    "invalid_json",
    "empty",
    "slow_body",
)
WAYS = ("rst", "fin", "error", "abort", "eof")


class BadFault(ValueError):
    """The text names no fault."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`value` is what follows KIND= (`die_after=5`), `options` the key=value pairs."""

    kind: str
    value: str | None
    options: dict[str, str]

    def number(self, key: str, default: int) -> int:
        """Return an option as a whole number; `key` "" is the value itself. Never negative."""
        text = (self.value if key == "" else self.options.get(key)) or ""
        return int(text) if text.isdecimal() else default

    def text(self, key: str, default: str) -> str:
        """Return an option as text."""
        return self.options.get(key, default)


def parse_fault(text: str) -> Fault:
    """Read `KIND[=value][;key=value...]`; raises BadFault."""
    first, *rest = [part.strip() for part in text.split(";")]
    kind, _, value = first.partition("=")
    if kind not in KINDS:
        raise BadFault(f"unknown fault {kind!r}; known: {', '.join(KINDS)}")
    options: dict[str, str] = {}
    for part in filter(None, rest):
        key, equals, option = part.partition("=")
        if not equals:
            raise BadFault(f"{part!r} is not key=value")
        options[key.strip()] = option.strip()
    if options.get("how", "rst") not in WAYS:
        raise BadFault(f"how must be one of {', '.join(WAYS)}")
    return Fault(kind, value or None, options)
