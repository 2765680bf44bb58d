"""W3C trace context: which trace a call is part of, and whether it is written down. https://www.w3.org/TR/trace-context/"""

import re
from dataclasses import dataclass

from lexora_router.handler import Headers

SAMPLED = 1
# A later version may have more behind the flags; the first one may not.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span's place: ids in lower-case hexadecimal digits, 32 and 16 of them, and the flags of its trace."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether the trace is written down."""
        return bool(self.flags & SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header that makes this span the parent of what it reaches."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse(traceparent: str) -> TraceContext | None:
    """The context in a header, None when it is none."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[1] == "00" and found[5]):
        return None
    return TraceContext(found[2], found[3], int(found[4], 16) & 3)  # sampled and random; the other bits have no meaning yet


def context_of(trace: Headers) -> TraceContext | None:
    """The context of a call's headers, None when they have none."""
    for name, value in trace:
        if name == "traceparent":
            return parse(value)
    return None


def trace_id_of(trace: Headers) -> str:
    """The trace's id for logs and errors; empty without one."""
    context = context_of(trace) if trace else None
    return "" if context is None else context.trace_id


def in_ratio(trace_id: str, ratio: float) -> bool:
    """Whether a trace is among the share that is written down: every service with this ratio decides alike."""
    return int(trace_id[16:], 16) < ratio * 2**64
