"""Responses that engines have stored: where each was made is noted as it is made, and asked when it is asked for.

With credentials a response is its tenant's: read, ended and gone on from by that one only.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from lexora_contract.answer import Head, Reply
from lexora_contract.operations import RESPONSES
from lexora_contract.port import Sink
from lexora_router.call import Call, Endpoint, Handler, Target
from lexora_router.errors import InvalidRequest, NotFound, UpstreamFailure, UpstreamRefused
from lexora_router.payload.single_keys import SingleKeys
from lexora_router.payload.user_names import text_of
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


class _Ids(msgspec.Struct, gc=False):
    """Ids in a request, of whatever type."""

    previous_response_id: msgspec.Raw = msgspec.Raw()
    request_id: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Answer).decode
_decode_ids = msgspec.json.Decoder(_Ids).decode
_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_WRITTEN_IDS = SingleKeys("previous_response_id", "request_id")


class NoteHome:
    """Notes which endpoint made a response; other calls pass by."""

    def __init__(self, inner: Handler, *, homes: ResponseHomes, clock: Callable[[], float]) -> None:
        self._inner = inner
        self._homes = homes
        self._clock = clock

    def __call__(self, call: Call, sink: Sink) -> Awaitable[None]:
        """Serve the call."""
        return self._inner(call, _Noting(sink, partial(self._note, call)) if call.path == RESPONSES else sink)

    def _note(self, call: Call, answer: bytes) -> None:
        response_id, target = _id_in(answer), call.target
        if response_id and target is not None:
            receipt = call.receipt
            model = "" if target.substitute else call.model
            home = Home(receipt.backend, receipt.endpoint, model, target.model, call.principal.account)
            self._homes.put(response_id, home, self._clock())


class _Noting:
    """A sink that notes the first event: it names the response, or none does."""

    __slots__ = ("_note", "_sink", "head")

    def __init__(self, sink: Sink, note: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._note: Callable[[bytes], None] | None = note
        self.head: Callable[[Head], None] = sink.head

    def frames(self, data: bytes) -> None:
        """Whole events."""
        if self._note is not None:
            self._note(_first_data(data))
            self._note = None
        self._sink.frames(data)

    def reply(self, reply: Reply) -> None:
        """A whole answer."""
        if self._note is not None:
            self._note(reply.body)
        self._sink.reply(reply)


class AskHome:
    """Serves a call for a stored response: by the endpoint that made it, else by the first one that has it.

    Unless replicas share it, that is not known after a restart, or of responses made elsewhere; then one endpoint after the
    other is asked. Where callers show credentials nothing is: whose such a response is, is not known either.
    """

    def __init__(self, attempt: Handler, *, homes: ResponseHomes, places: Places, clock: Callable[[], float]) -> None:
        self._attempt = attempt
        self._homes = homes
        self._places = places
        self._clock = clock

    async def __call__(self, call: Call, sink: Sink) -> None:
        """Serve the call; raises the engine's refusal, or NotFound where there is nothing to ask."""
        home = await self._homes.find(call.response_id, self._clock())
        if not _is_own(call, home):
            raise _no_response(call.response_id)
        call.model = home.model if home is not None else ""
        failure: UpstreamFailure | None = None
        for target, endpoint in self._places(home)[:MAX_ASKED]:
            self._begin(call, target, endpoint)
            try:
                await self._attempt(call, sink)
                return
            except UpstreamFailure as error:
                if call.begun or not _may_be_elsewhere(error):
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


class OwnResponses:
    """Lets a call go on from a stored response of its own tenant only, and store none under another's id.

    Raises NotFound, and InvalidRequest for an id that is there twice or in other letters: engines differ in which one counts.
    """

    def __init__(self, inner: Handler, *, homes: ResponseHomes, clock: Callable[[], float]) -> None:
        self._inner = inner
        self._homes = homes
        self._clock = clock

    def __call__(self, call: Call, sink: Sink) -> Awaitable[None]:
        """Serve the call."""
        if call.path == RESPONSES and call.principal.account and _WRITTEN_IDS.may_be_in(call.body):
            return self._checked(call, sink)
        return self._inner(call, sink)

    async def _checked(self, call: Call, sink: Sink) -> None:
        await self._check(call)
        await self._inner(call, sink)

    async def _check(self, call: Call) -> None:
        now = self._clock()
        _WRITTEN_IDS.check(call.body)
        try:
            named = _decode_ids(call.body)
        except _ERRORS:
            return  # it is an object; what an engine does not read either, it refuses
        before = text_of(named.previous_response_id)
        if before and not _is_own(call, await self._homes.find(before, now)):
            raise _no_response(before)
        if own := text_of(named.request_id):
            await self._check_free(own, call, now)

    async def _check_free(self, response_id: str, call: Call, now: float) -> None:
        home = await self._homes.find(response_id, now)
        if home is not None and not _is_own(call, home):
            raise InvalidRequest("The request id is that of a stored response; choose another one.", "request_id")


def _is_own(call: Call, home: Home | None) -> bool:
    """Whether the response is its tenant's, by a model that the caller may use; without credentials each one is."""
    principal = call.principal
    if not principal.account:
        return True
    return home is not None and home.tenant == principal.account and (not home.model or principal.may_use(home.model))


def _no_response(response_id: str) -> NotFound:
    return NotFound(f"There is no response `{response_id[:MAX_ID_CHARS]}`.")


def _may_be_elsewhere(failure: UpstreamFailure) -> bool:
    return not isinstance(failure, UpstreamRefused) or failure.http_status in (404, 405) or failure.http_status >= 500


def _id_in(data: bytes) -> str | None:
    try:
        answer = _decode(data)
    except _ERRORS:
        return None
    found = answer.response.id if answer.response is not None else answer.id
    return found if found and len(found) <= MAX_ID_CHARS else None


def _first_data(block: bytes) -> bytes:
    return next((line[5:] for line in block.splitlines() if line.startswith(b"data:")), b"")
