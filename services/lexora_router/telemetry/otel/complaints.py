"""What OpenTelemetry's SDK has to complain of, in our log: one warning a minute, however often it says so."""

import logging
import time
from collections.abc import Callable

import structlog

WARN_SECONDS = 60.0
MAX_CHARS = 500

_log = structlog.get_logger("lexora.telemetry")
_sdk = logging.getLogger("opentelemetry")


class Complaints(logging.Handler):
    """Handles the SDK's loggers, which have no other handler, from `listen` to `close`."""

    def __init__(self, endpoint: str, dropped: Callable[[], int]) -> None:
        super().__init__(logging.WARNING)
        self._endpoint = endpoint
        self._dropped = dropped
        self._warned_at = float("-inf")
        self._failing = False

    def listen(self) -> None:
        """Begin to listen."""
        _sdk.propagate = False
        _sdk.addHandler(self)

    def close(self) -> None:
        """Stop listening."""
        _sdk.removeHandler(self)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Warn, if that was not done lately."""
        if record.name.startswith("opentelemetry.trace"):
            return  # of headers, which are a client's
        self._failing, now = True, time.monotonic()
        if now - self._warned_at >= WARN_SECONDS:
            self._warned_at = now
            reason = record.getMessage()[:MAX_CHARS]
            _log.warning("telemetry_failing", endpoint=self._endpoint, reason=reason, dropped=self._dropped())

    def over(self) -> None:
        """The collector took something: if it did not before, say so."""
        if self._failing:
            self._failing = False
            _log.info("telemetry_back", endpoint=self._endpoint, dropped=self._dropped())
