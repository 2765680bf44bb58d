"""Work in the background that a bug must not end: without probes, say, no endpoint would ever come back."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

_log = structlog.get_logger("lexora.background")


@contextmanager
def survived(work: str, **about: str) -> Iterator[None]:
    """Log what goes wrong inside, and go on behind it; a cancellation passes."""
    try:
        yield
    except Exception:  # the boundary: a bug in one round must not end those to come
        _log.exception("bug", work=work, **about)
