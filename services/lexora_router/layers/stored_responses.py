"""Responses that engines have stored: where each was made is noted as it is made, and asked when it is asked for."""

from collections.abc import Callable, Sequence

import msgspec

from lexora_contract.answer import Reply
from lexora_contract.operations import RESPONSES
from lexora_router.call import Call, Commit, Emit, Endpoint, Event, Frames, Handler, Target
from lexora_router.errors import NotFound, UpstreamFailure, UpstreamRefused
from lexora_router.policy.response_homes import Home, ResponseHomes

# Of a response whose home is not known so many endpoints are asked, one after the other.
MAX_ASKED = 32
MAX_ID_CHARS = 256

# Where a response of this home may be; None, when that is not known, means anywhere.
Places = Callable[[Home | None], Sequence[tuple[Target, Endpoint]]]


class _Named(msgspec.Struct, gc=False):
    id: str | None = None


class _Answer(msgspec.Struct, gc=False):
    id: str | None = None
    response: _Named | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class NoteHome:
    """Notes which endpoint made a response; other calls pass by."""

    def __init__(self, inner: Handler, *, homes: ResponseHomes, clock: Callable[[], float]) -> None:
        self._inner = inner
        self._homes = homes
        self._clock = clock

    async def __call__(self, call: Call, emit: Emit) -> None:
        """Serve the call."""
        await self._inner(call, self._noting(call, emit) if call.path == RESPONSES else emit)

    def _noting(self, call: Call, emit: Emit) -> Emit:
        noted = False

        async def note(event: Event) -> None:
            nonlocal noted
            if not noted and isinstance(event, Reply | Frames):
                noted = True  # the first event names the response, or none does
                response_id = _id_in(event.body if isinstance(event, Reply) else _first_data(event.data))
                if response_id and call.target is not None:
                    receipt, target = call.receipt, call.target
                    home = Home(receipt.backend, receipt.endpoint, "" if target.substitute else call.model, target.model)
                    self._homes.put(response_id, home, self._clock())
            await emit(event)

        return note


class AskHome:
    """Serves a call for a stored response: by the endpoint that made it, else by the first one that has it.

    That is not known after a restart, or of responses made elsewhere; then one endpoint after the other is asked.
    """

    def __init__(self, attempt: Handler, *, homes: ResponseHomes, places: Places, clock: Callable[[], float]) -> None:
        self._attempt = attempt
        self._homes = homes
        self._places = places
        self._clock = clock

    async def __call__(self, call: Call, emit: Emit) -> None:
        """Serve the call; raises the engine's refusal, or NotFound where there is nothing to ask."""
        home = self._homes.get(call.response_id, self._clock())
        call.model = home.model if home is not None else ""
        failure: UpstreamFailure | None = None
        for target, endpoint in self._places(home)[:MAX_ASKED]:
            commit = Commit(emit)
            self._begin(call, target, endpoint)
            try:
                await self._attempt(call, commit)
                return
            except UpstreamFailure as error:
                if commit.done or not _may_be_elsewhere(error):
                    raise
                # An engine that could not be asked may have it; that says more than the others' 404.
                failure = error if failure is None or isinstance(failure, UpstreamRefused) else failure
        raise failure or NotFound("The endpoint that made this response is not configured any more.")

    def _begin(self, call: Call, target: Target, endpoint: Endpoint) -> None:
        call.target, call.endpoint = target, endpoint
        receipt = call.receipt
        receipt.backend, receipt.endpoint, receipt.model = target.backend, endpoint.address, target.model
        receipt.attempts += 1
        receipt.attempted_at = now = self._clock()
        receipt.dispatched_at = receipt.dispatched_at or now


def _may_be_elsewhere(failure: UpstreamFailure) -> bool:
    return not isinstance(failure, UpstreamRefused) or failure.http_status in (404, 405) or failure.http_status >= 500


def _id_in(data: bytes) -> str | None:
    try:
        answer = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found = answer.response.id if answer.response is not None else answer.id
    return found if found and len(found) <= MAX_ID_CHARS else None


def _first_data(block: bytes) -> bytes:
    return next((line[5:] for line in block.splitlines() if line.startswith(b"data:")), b"")
