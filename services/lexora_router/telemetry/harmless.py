"""A recorder whose bugs are logged: no call fails by what is recorded."""

import structlog

from lexora_router.call import Call
from lexora_router.layers.observe import Recorder

_log = structlog.get_logger("lexora.telemetry")


class Harmless:
    """Another recorder, without its exceptions."""

    def __init__(self, inner: Recorder) -> None:
        self._inner = inner

    def begin(self, call: Call) -> None:
        """A call has come in."""
        try:
            self._inner.begin(call)
        except Exception:  # the boundary: the call goes on
            _log.exception("bug", request_id=call.id)

    def end(self, call: Call, status: int, error: BaseException | None) -> None:
        """The call is over."""
        try:
            self._inner.end(call, status, error)
        except Exception:  # the boundary: other recorders count the call
            _log.exception("bug", request_id=call.id)
