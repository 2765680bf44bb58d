"""Sees every outcome: the outermost layer."""

from asyncio import CancelledError
from collections.abc import Callable
from typing import Protocol

from lexora_contract.port import Sink
from lexora_router.call import Call, Handler
from lexora_router.errors import Draining, RouterError, http_status

CLIENT_GONE = 499
NOT_DONE = "The router is shutting down, and the call was not done in time."


class Recorder(Protocol):
    """Counts calls or writes them down."""

    def begin(self, call: Call) -> None:
        """A call has come in."""

    def end(self, call: Call, status: int, error: BaseException | None) -> None:
        """The call is over: HTTP status (499: the client left), and the error it ended with, if any."""


class Observe:
    """Reports every call to the recorders: once when it begins, once when it ends, whatever way it ends."""

    def __init__(self, inner: Handler, *, recorders: tuple[Recorder, ...], clock: Callable[[], float]) -> None:
        self._inner = inner
        self._recorders = recorders
        self._clock = clock

    async def __call__(self, call: Call, sink: Sink) -> None:
        """Serve the call and report it."""
        for recorder in self._recorders:
            recorder.begin(call)
        status = 200
        failure: BaseException | None = None
        try:
            await self._inner(call, sink)
        except CancelledError as gone:
            late = Draining(NOT_DONE) if call.aborted else None
            status, failure = (CLIENT_GONE, gone) if late is None else (http_status(late), late)
            raise
        except RouterError as error:
            status, failure = http_status(error), error
            raise
        except BaseException as bug:
            status, failure = 500, bug
            raise
        finally:
            call.receipt.finished_at = self._clock()
            for recorder in self._recorders:
                recorder.end(call, status, failure)
            # The error refers to this frame; if the frame kept the error, both would stay until a collection.
            failure = None
