"""The headers with which a client says how its call is to be treated."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lexora_contract.labels import Labels, labels_fault
from lexora_contract.limits import MAX_IDEMPOTENCY_KEY
from lexora_contract.port import Options
from lexora_contract.priority import HIGH, LOW, WORDS
from lexora_gateway.errors import Refused, invalid
from lexora_gateway.request import TENANT, USER, named_tenant_of, user_of

if TYPE_CHECKING:
    from lexora_gateway.asgi_types import Headers

_PRIORITY = b"x-lexora-priority"
_FALLBACK = b"x-lexora-fallback"
_RESUME = b"x-lexora-resume"
_SESSION = b"x-lexora-session"
_IDEMPOTENCY = b"idempotency-key"
_LABELS = b"x-lexora-labels"
_MAX_QUEUE_TIME = b"x-lexora-max-queue-time"
EXPLAIN = b"x-lexora-explain"
_OPTIONS = frozenset(
    (_PRIORITY, _FALLBACK, _RESUME, _SESSION, _IDEMPOTENCY, _LABELS, _MAX_QUEUE_TIME, USER, TENANT),
)
_PRIORITIES = {word.encode(): number for word, number in WORDS.items()} | {b"%d" % n: n for n in range(LOW, HIGH + 1)}
_KEY = re.compile(rb"[!-~]{1,%d}" % MAX_IDEMPOTENCY_KEY)
_SECONDS = re.compile(rb"\d{1,9}(\.\d{1,9})?")


def call_options(headers: Headers, request_id: str, user: str = "") -> Options:
    """Options of a call, from its x-lexora- headers; `user` is the body's. Raises Refused (400)."""
    if _OPTIONS.isdisjoint(headers):
        return Options(request_id, user)
    priority = headers.get(_PRIORITY)
    return Options(
        request_id=request_id,
        user=user_of(headers) or user,
        tenant=named_tenant_of(headers),
        session_key="" if (session := headers.get(_SESSION)) is None else session.decode("utf-8", "replace").strip(),
        idempotency_key="" if (key := headers.get(_IDEMPOTENCY)) is None else _idempotency_key(key),
        priority=None if priority is None else _priority(priority),
        fallback_allowed=not _forbids(headers, _FALLBACK),
        resume_allowed=not _forbids(headers, _RESUME),
        max_queue_time=None if (wait := headers.get(_MAX_QUEUE_TIME)) is None else _seconds(wait),
        labels=() if (labels := headers.get(_LABELS)) is None else _labels(labels),
    )


def check_explain(headers: Headers) -> None:
    """Raise Refused (400) for an x-lexora-explain that is not 1; there must be one."""
    if headers[EXPLAIN].strip() != b"1":
        # Whoever wanted an explanation must not be charged for an answer, nor the other way round.
        raise _refused(EXPLAIN, "1, or be left out")


def _priority(value: bytes) -> int:
    priority = _PRIORITIES.get(value.strip().lower())
    if priority is None:
        raise _refused(_PRIORITY, "high, normal, low or a whole number from 0 to 100")
    return priority


def _seconds(value: bytes) -> float:
    value = value.strip()
    if not _SECONDS.fullmatch(value):
        raise _refused(_MAX_QUEUE_TIME, "a number of seconds, 0 or more")
    return float(value)


def _labels(value: bytes) -> Labels:
    pairs = [piece.partition("=") for piece in value.decode("utf-8", "replace").split(",")]
    labels = tuple(sorted((key.strip(), text.strip()) for key, _, text in pairs))
    if not all(sign for _, sign, _ in pairs) or "\ufffd" in str(labels):
        raise _refused(_LABELS, "key=value pairs in UTF-8 with commas between them, such as team=search, env=prod")
    if fault := labels_fault(labels):
        raise Refused(invalid(f"{_LABELS.decode()} {fault}", _LABELS.decode()))
    return labels


def _idempotency_key(value: bytes) -> str:
    if not _KEY.fullmatch(value):
        raise _refused(_IDEMPOTENCY, f"1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters")
    return value.decode("ascii")


def _forbids(headers: Headers, name: bytes) -> bool:
    value = headers.get(name)
    if value is None:
        return False
    if value.strip().lower() != b"never":
        # A client that misspells what it forbids must get an error.
        raise _refused(name, "never, or be left out")
    return True


def _refused(name: bytes, needed: str) -> Refused:
    header = name.decode()
    return Refused(invalid(f"{header} must be {needed}.", header))
