"""Forms that both wires have in common: durations, and how a model was chosen."""

from urllib.parse import quote

_NANOS_PER_MS = 1_000_000


def duration(seconds: float) -> str:
    """A duration as OpenAI writes it, rounded up to the millisecond: `0s`, `12ms`, `1s`, `7.66s`, `6m0s`, `1h0m0s`."""
    # In nanoseconds first: 0.07 s are 70 ms, not a trifle more.
    ms = max(-(-round(seconds * 1e9) // _NANOS_PER_MS), 0)
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    whole, fraction = divmod(ms, 1000)
    text = f"{whole}.{fraction:03d}".rstrip("0") if fraction else str(whole)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{text}s"
    return f"{minutes}m{text}s" if minutes else f"{text}s"


def auto_text(model: str, task_type: str, confidence: float, by: str) -> str:
    """How the model was chosen for a call that asked for `auto`; names are percent-encoded where need be."""
    task = f";task={quote(task_type)}" if task_type else ""
    return f"{quote(model, safe='/:@+~')};confidence={confidence:.2f}{task};by={by}"
