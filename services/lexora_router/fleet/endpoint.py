"""One address of a backend: one attempt there, from request to last byte."""

from collections.abc import Callable
from hashlib import blake2b

from yarl import URL

from lexora_contract.operations import dialect_of
from lexora_contract.port import Sink
from lexora_contract.request_ids import new_request_id
from lexora_router.adapters import Adapter
from lexora_router.call import Call
from lexora_router.engines.answer import AnswerRelay
from lexora_router.engines.answer_model import Naming
from lexora_router.engines.transport import ConnectError, InvalidAnswer, Transport, TransportError, failure_of, head
from lexora_router.errors import InvalidRequest, UpstreamBroken
from lexora_router.fleet.auto_limit import AutoLimit
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.leases.slots import EndpointLease

MAX_CACHED_HEADS = 1024
_OWN_DIGITS = 16  # behind a client's request id


def address_of(base: str) -> str:
    """The name of an endpoint: its base address in the one form that all ways to write it have."""
    return str(URL(base)).rstrip("/")


class HttpEndpoint:
    """An endpoint that is reached over HTTP.

    `in_flight` counts the slots taken of at most `limit` (None: any number); the pool counts, at its choice. With `auto`
    the limit is what that says, and with a `lease` what is held of it.
    """

    def __init__(
        self,
        backend: str,
        base: str,
        *,
        adapter: Adapter,
        transport: Transport,
        condition: Condition,
        limit: int | None,
        name_as_asked: bool,
        max_response_bytes: int,
        clock: Callable[[], float],
        auto: AutoLimit | None = None,
        lease: EndpointLease | None = None,
    ) -> None:
        self.backend = backend
        self.base = URL(base)
        self.address = address_of(base)
        self.auto = auto
        self.lease = lease
        self._limit = limit
        self._moving = auto if lease is None or limit is None else lease  # what the limit is read from, where it changes
        self.condition = condition
        self.adapter = adapter
        self._clock = clock
        self._origin = transport.origin(self.base)
        self._name_as_asked = name_as_asked
        self._answers = AnswerRelay(
            f"Backend `{backend}` at {self.address}", max_bytes=max_response_bytes, end_mark=adapter.sends_end_mark, clock=clock
        )
        self._heads: dict[tuple[str, str], bytes] = {}
        self._own_headers = {"accept-encoding": "identity", "user-agent": "lexora"} | adapter.headers()

    @property
    def in_flight(self) -> int:
        """Attempts under way."""
        return self.condition.in_flight

    @property
    def limit(self) -> int | None:
        """Attempts that may be under way; None for any number."""
        return self._limit if self._moving is None else self._moving.limit

    @property
    def stated(self) -> int | None:
        """The limit over all replicas, as this one has it."""
        return self._limit if self.auto is None else self.auto.limit

    @property
    def guessed(self) -> bool:
        """Whether that moves with what calls find."""
        return self.auto is not None

    def has_slot(self) -> bool:
        """Whether one more attempt may begin."""
        limit = self._limit if self._moving is None else self._moving.limit
        return limit is None or self.condition.in_flight < limit

    async def attempt(self, call: Call, sink: Sink) -> None:
        """Try the call here once. Raises UpstreamFailure; leaving early closes the connection, so that the engine aborts."""
        body, hide_usage = self.adapter.body(call)
        asked = self._name_for(call) if self._name_as_asked else ""
        if asked:
            sink = Naming(asked, dialect_of(call.path), sink)
        answer = self._answers.to(call, sink, hide_usage=hide_usage)
        try:
            connection = await self._origin.send(self._head(call, len(body)), body, answer, call.flow)
            del body  # a rewritten one is not held while the answer comes
            await connection.ended()
        except TransportError as error:
            if call.receipt.first_event_at:
                why = f": {error}" if isinstance(error, InvalidAnswer) else ""
                raise UpstreamBroken(f"The connection to the engine broke in mid-answer{why}.") from error
            if isinstance(error, ConnectError):
                reason = failure_of(error, self.backend, self.address).message
                self.condition.found(healthy=False, reason=reason, now=self._clock())
            # Raised where it is made: in a name it would be a cycle with this frame, and wait for the garbage collector.
            raise failure_of(error, self.backend, self.address) from error

    def _name_for(self, call: Call) -> str:
        """The client's name for the model, where the engine has another one; empty where the engine's word stays."""
        target = call.target
        assert target is not None
        asked = call.model or target.name
        return "" if target.substitute or target.model == asked else asked

    def _head(self, call: Call, length: int) -> bytes:
        assert call.target is not None
        if call.response_id:
            url = self.adapter.url(self.base, call.resource, call.target.model).extend_query(call.query)
            return self._with_lines(head(call.method, url, self._own_headers), call, length)
        key = (call.path, call.target.model)
        fixed = self._heads.get(key)
        if fixed is None:
            fixed = head("POST", self.adapter.url(self.base, *key), self._own_headers)
            if len(self._heads) < MAX_CACHED_HEADS:
                self._heads[key] = fixed
        return self._with_lines(fixed, call, length)

    def _with_lines(self, fixed: bytes, call: Call, length: int) -> bytes:
        text = f"content-type: {call.content_type}\r\nx-request-id: {_request_id(call)}\r\ncontent-length: {length}\r\n"
        lines = 3
        if call.idempotency_key:
            text += f"idempotency-key: {_idempotency_key(call)}\r\n"
            lines += 1
        for name, value in (*call.trace, *call.headers):
            text += f"{name}: {value}\r\n"
            lines += 1
        if text.count("\n") != lines or text.count("\r") != lines:
            raise InvalidRequest("A header of the call has a line break in it.")
        return fixed + text.encode("latin-1", "replace") + b"\r\n"


def _request_id(call: Call) -> str:
    """What the engine gets for it: where tenants are known none can choose the name of what an engine runs or stores."""
    return f"{call.id}-{new_request_id()[:_OWN_DIGITS]}" if call.cache_salt else call.id


def _idempotency_key(call: Call) -> str:
    """What the engine gets for it: where tenants are known, each has keys of its own, or one got another's answer."""
    key, salt = call.idempotency_key, call.cache_salt
    return blake2b(key.encode(), digest_size=16, key=salt.encode()).hexdigest() if salt else key
