"""One address of a backend: one attempt there, from request to last byte."""

from collections.abc import Callable

from yarl import URL

from lexora_contract.operations import dialect_of, operation_of
from lexora_router.call import Call, Emit
from lexora_router.engines.addressing import EngineProtocol
from lexora_router.engines.answer import AnswerRelay
from lexora_router.engines.answer_model import naming
from lexora_router.engines.transport import ConnectError, InvalidAnswer, Response, Transport, TransportError, failure_of, head
from lexora_router.errors import InvalidRequest, UpstreamBroken
from lexora_router.fleet.auto_limit import AutoLimit
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.payload.multipart import is_form, with_model_multipart
from lexora_router.payload.rewrite import with_model, with_priority, with_stream_usage, without_priority
from lexora_router.policy.priority import to_vllm

MAX_CACHED_HEADS = 1024


def address_of(base: str) -> str:
    """The name of an endpoint: its base address in the one form that all ways to write it have."""
    return str(URL(base)).rstrip("/")


class HttpEndpoint:
    """An endpoint that speaks OpenAI's HTTP API.

    `in_flight` counts the slots taken of at most `limit` (None: any number); the pool counts, at its choice. With `auto`
    the limit is what that says.
    """

    def __init__(
        self,
        backend: str,
        base: str,
        *,
        protocol: EngineProtocol,
        transport: Transport,
        condition: Condition,
        limit: int | None,
        stream_usage: bool,
        send_priority: bool,
        keep_priority: bool,
        end_mark: bool,
        name_as_asked: bool,
        max_response_bytes: int,
        clock: Callable[[], float],
        auto: AutoLimit | None = None,
    ) -> None:
        self.backend = backend
        self.base = URL(base)
        self.address = address_of(base)
        self.auto = auto
        self._limit = limit
        self.condition = condition
        self.protocol = protocol
        self._clock = clock
        self._send_priority = send_priority
        self._keep_priority = keep_priority
        self._origin = transport.origin(self.base)
        self._stream_usage = stream_usage
        self._name_as_asked = name_as_asked
        self._answers = AnswerRelay(
            f"Backend `{backend}` at {self.address}", max_bytes=max_response_bytes, end_mark=end_mark, clock=clock
        )
        self._heads: dict[tuple[str, str], bytes] = {}
        self._own_headers = {"accept-encoding": "identity", "user-agent": "lexora"} | protocol.auth()

    @property
    def in_flight(self) -> int:
        """Attempts under way."""
        return self.condition.in_flight

    @property
    def limit(self) -> int | None:
        """Attempts that may be under way; None for any number."""
        return self._limit if self.auto is None else self.auto.limit

    def has_slot(self) -> bool:
        """Whether one more attempt may begin."""
        limit = self.limit
        return limit is None or self.condition.in_flight < limit

    async def attempt(self, call: Call, emit: Emit) -> None:
        """Try the call here once. Raises UpstreamFailure; leaving early closes the connection, so that the engine aborts."""
        body, hide_usage = self._request_body(call)
        asked = self._name_for(call) if self._name_as_asked else ""
        if asked:
            emit = naming(asked, dialect_of(call.path), emit)
        response = await self._send(call, body)
        del body  # a rewritten one is not held while the answer comes
        try:
            await self._answers.relay(call, emit, response, hide_usage=hide_usage)
        except TransportError as error:
            if call.receipt.first_event_at:
                why = f": {error}" if isinstance(error, InvalidAnswer) else ""
                raise UpstreamBroken(f"The connection to the engine broke in mid-answer{why}.") from error
            raise failure_of(error, self.backend, self.address) from error
        finally:
            response.close()

    def _name_for(self, call: Call) -> str:
        """The client's name for the model, where the engine has another one; empty where the engine's word stays."""
        target = call.target
        assert target is not None
        asked = call.model or target.name
        return "" if target.substitute or target.model == asked else asked

    async def _send(self, call: Call, body: bytes) -> Response:
        try:
            return await self._origin.exchange(self._head(call, len(body)), body)
        except TransportError as error:
            if isinstance(error, ConnectError):
                reason = failure_of(error, self.backend, self.address).message
                self.condition.found(healthy=False, reason=reason, now=self._clock())
            # Raised where it is made: in a name it would be a cycle with this frame, and wait for the garbage collector.
            raise failure_of(error, self.backend, self.address) from error

    def _head(self, call: Call, length: int) -> bytes:
        assert call.target is not None
        if call.response_id:
            url = self.protocol.url(self.base, call.resource, call.target.model).extend_query(call.query)
            return self._with_lines(head(call.method, url, self._own_headers), call, length)
        key = (call.path, call.target.model)
        fixed = self._heads.get(key)
        if fixed is None:
            fixed = head("POST", self.protocol.url(self.base, *key), self._own_headers)
            if len(self._heads) < MAX_CACHED_HEADS:
                self._heads[key] = fixed
        return self._with_lines(fixed, call, length)

    def _with_lines(self, fixed: bytes, call: Call, length: int) -> bytes:
        lines = [f"content-type: {call.content_type}", f"x-request-id: {call.id}", f"content-length: {length}"]
        lines += [f"{name}: {value}" for name, value in call.trace]
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
            raise InvalidRequest("A header of the call has a line break in it.")
        return fixed + text.encode("latin-1", "replace") + b"\r\n\r\n"

    def _request_body(self, call: Call) -> tuple[bytes, bool]:
        """The body for this engine, the client's own bytes where possible, and whether to hide the usage chunk."""
        assert call.target is not None
        if call.response_id:
            return b"", False
        body, model, operation = call.body, call.target.model, operation_of(call.path)
        if model and model != call.model:
            if is_form(call.content_type):
                body = with_model_multipart(call.content_type, body, model)
            else:
                body = with_model(body, model)
        if self._send_priority and call.priority is not None and operation.queued:
            body = with_priority(body, to_vllm(call.priority))
        elif call.own_priority and not self._keep_priority:
            body = without_priority(body)
        ask = call.stream and not call.include_usage and self._stream_usage and operation.stream_usage
        return (with_stream_usage(body) if ask else body), ask
