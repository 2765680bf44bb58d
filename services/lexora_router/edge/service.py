"""The service behind the contract: proto to domain and back, errors to statuses. Knows messages, but no transport.

`grpc_server` puts it on the wire; the facade may call it in process, with the same messages, deadlines and errors.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn, TypeVar
from urllib.parse import parse_qsl

import structlog

from lexora.v1 import (
    call_pb2,
    classify_pb2,
    embed_pb2,
    explain_pb2,
    health_pb2,
    models_pb2,
    options_pb2,
    receipt_pb2,
    recent_calls_pb2,
    reload_pb2,
    router_pb2,
    stats_pb2,
)
from lexora_contract.answer import Headers, Receipt, Reply
from lexora_contract.draining import Underway
from lexora_contract.messages import options_of, raw_of, receipt_message, reply_message
from lexora_contract.operations import CHAT, COMPLETIONS, EMBEDDINGS, OPERATIONS, Operation, operation_of, stored_operation
from lexora_contract.port import CallContext, ClientSink, Options, RawCall, Send
from lexora_contract.request_ids import new_request_id
from lexora_contract.rpcs import RPCS
from lexora_router.call import ANONYMOUS, Call, Handler, WholeAnswer
from lexora_router.edge.call_context import (
    announces_streams,
    check_identity,
    identity,
    refuse_empty,
    trace_of,
)
from lexora_router.edge.call_failed import bug_in, failed
from lexora_router.edge.classify import Classifier, classify
from lexora_router.edge.explain import Explainer
from lexora_router.edge.identity import Request, user_of
from lexora_router.edge.introspection import Overview
from lexora_router.edge.options import check_options, check_policies, is_id
from lexora_router.edge.stats_messages import reload_message
from lexora_router.edge.stream_sink import StreamSink
from lexora_router.edge.translate import (
    chat_body,
    chat_response,
    completion_body,
    completion_response,
    embed_body,
    embed_response,
)
from lexora_router.errors import (
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    NotFound,
    RateLimited,
    RouterError,
    TooLarge,
    Unimplemented,
    http_status,
)
from lexora_router.layers.observe import NOT_DONE, Recorder
from lexora_router.layers.rate_limit import Meter
from lexora_router.payload.fields import Fields, check_model
from lexora_router.payload.inspect import inspect_json
from lexora_router.payload.json_object import without_bom
from lexora_router.payload.multipart import inspect_multipart, is_form
from lexora_router.payload.user_names import bounded
from lexora_router.policy.callers import TrustedProxies
from lexora_router.telemetry.reloads import Reload
from lexora_router.telemetry.trace_context import trace_id_of

MAX_CONTENT_TYPE_LENGTH = 1024
MAX_QUERY_LENGTH = 4096
MAX_HEADER_LENGTH = 4096
DRAINING = "The router is shutting down; try another one."
JSON = "application/json"

_NO_OPTIONS = Options()

_log = structlog.get_logger("lexora.server")
_Answer = TypeVar("_Answer")


async def _no_model() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Serving:
    """What calls are served with under one configuration; None where the router does not do it.

    `foresee` raises RouterError for a tenant and a body of so many bytes that would surely be refused; `default_model` names
    the model of calls that name none, empty when there is none.
    """

    pipeline: Handler
    meter: Meter | None = None
    classify: Classifier | None = None
    foresee: Callable[[str, int], None] | None = None
    proxies: TrustedProxies = field(default_factory=lambda: TrustedProxies(()))
    reload: Callable[[], Awaitable[Reload]] | None = None
    default_model: Callable[[], Awaitable[str]] = _no_model


class RouterService:
    """Serves the rpcs of RouterService. Every method raises CallFailed, and nothing else, for a failed call."""

    def __init__(
        self,
        serving: Serving,
        overview: Overview,
        *,
        recorders: tuple[Recorder, ...],
        max_body_bytes: int,
        clock: Callable[[], float],
        explainer: Explainer | None = None,
    ) -> None:
        self.serving = serving  # a reload puts another one here
        self._explainer = explainer
        self._calls: Underway[Call] = Underway()
        self._overview = overview
        self._recorders = recorders
        self._max_body_bytes = max_body_bytes
        self._clock = clock
        self.draining = False

    # -- generation

    async def generate(self, request: router_pb2.GenerateRequest, context: CallContext) -> router_pb2.GenerateResponse:
        """One request, one whole answer."""
        asked = request.call
        kind = asked.WhichOneof("input")
        serve = partial(self._generate, kind, asked) if kind else refuse_empty(context)
        return await self._guarded(asked.options, context, serve, limited=asked)

    async def _generate(self, kind: str | None, asked: call_pb2.Call, call: Call) -> router_pb2.GenerateResponse:
        await self._fill(kind, asked, call, stream=False)
        response = await self._whole(call, _GENERATED[kind])
        response.receipt.CopyFrom(self._receipt(call))
        return response

    async def stream(self, request: router_pb2.StreamRequest, context: CallContext, send: Send) -> None:
        """One request, the answer as it is made."""
        asked = request.call
        serve = partial(self._stream, asked.WhichOneof("input"), asked, send, announces_streams(context))
        await self._guarded(asked.options, context, serve, limited=asked)

    async def _stream(self, kind: str | None, asked: call_pb2.Call, send: Send, announced: bool, call: Call) -> None:
        await self._fill(kind, asked, call, stream=True)
        if announced and call.stream:
            await send(router_pb2.StreamResponse(receipt=self._receipt(call)))
        sink = StreamSink(kind, send, lambda: self._receipt(call), call.flow)
        try:
            await self.serving.pipeline(call, sink)
            await sink.end()
        except RouterError:
            await sink.flush()
            raise
        finally:
            sink.close()

    async def relay(self, call: RawCall, context: CallContext, sink: ClientSink) -> None:
        """One request in the engine's own bytes; its answer goes to `sink` as it is made, and has gone at the return."""
        serve = partial(self._relay, call, sink)
        await self._guarded(call.options, context, serve, limited=call, body=call.take_body())

    def _relay(self, raw: RawCall, sink: ClientSink, call: Call) -> Awaitable[None]:
        self._fill_raw(raw, call, stream=True)
        sink.accepted(call.receipt, streams=call.stream)
        return self.serving.pipeline(call, sink)

    async def embed(self, request: embed_pb2.EmbedRequest, context: CallContext) -> embed_pb2.EmbedResponse:
        """Vectors for texts or token ids."""
        return await self._guarded(request.options, context, lambda call: self._embed(request, call), limited=request)

    async def _embed(self, request: embed_pb2.EmbedRequest, call: Call) -> embed_pb2.EmbedResponse:
        model = await self._model(call, request.model)
        self._set_body(call, EMBEDDINGS, *embed_body(request, model))
        response = await self._whole(call, lambda reply: embed_response(reply.body))
        response.receipt.CopyFrom(self._receipt(call))
        return response

    async def refuse_undecodable(self, method: str, context: CallContext) -> None:
        """A request whose bytes are no message of `method`, /service/rpc: refused, and counted as any malformed request.

        Questions about the router, and what belongs to other services, are refused without being counted.
        """

        def refuse(_: Call) -> NoReturn:
            raise InvalidRequest(f"The request does not decode: its bytes are no message that {method} takes.")

        counted = method in RPCS and RPCS[method].counted
        await self._guarded(_NO_OPTIONS, context, refuse, always=not counted, limited=call_pb2.Call() if counted else None)

    def foresee(self, tenant: str, size: int) -> None:
        """Raise CallFailed for a call that would be refused whatever its body of `size` bytes says.

        `tenant` is empty while no user is named. Nothing is charged or counted: that is for the call that then comes without a
        body.
        """
        try:
            if self.draining:
                raise Draining(DRAINING)
            if self.serving.foresee is not None:
                self.serving.foresee(bounded(tenant), size)
        except RouterError as error:
            raise failed(error, Receipt()) from None

    # -- overview

    async def classify(self, request: classify_pb2.ClassifyRequest, context: CallContext) -> classify_pb2.ClassifyResponse:
        """Which model fits a task."""
        return await self._guarded(
            request.options, context, lambda call: classify(request, call, self.serving.classify), limited=request
        )

    async def list_models(self, request: models_pb2.ListModelsRequest, context: CallContext) -> models_pb2.ListModelsResponse:
        """Exactly the routable models."""
        return await self._guarded(
            _NO_OPTIONS, context, lambda call: _within(call, self._overview.models(request)), always=True
        )

    async def get_model(self, request: models_pb2.GetModelRequest, context: CallContext) -> models_pb2.GetModelResponse:
        """One of them."""
        return await self._guarded(
            _NO_OPTIONS, context, lambda call: _within(call, self._overview.model(request.id)), always=True
        )

    async def health(self, request: health_pb2.HealthRequest, context: CallContext) -> health_pb2.HealthResponse:
        """State of the router and of each backend."""
        health = self._overview.health
        return await self._guarded(
            _NO_OPTIONS, context, lambda call: _within(call, health(draining=self.draining)), always=True
        )

    async def get_stats(self, request: stats_pb2.GetStatsRequest, context: CallContext) -> stats_pb2.GetStatsResponse:
        """Counters since the start."""
        return await self._guarded(_NO_OPTIONS, context, self._get_stats, always=True)

    async def _get_stats(self, call: Call) -> stats_pb2.GetStatsResponse:
        return self._overview.stats()

    async def explain(self, request: explain_pb2.ExplainRequest, context: CallContext) -> explain_pb2.ExplainResponse:
        """Where a call would go and why."""
        options = request.call.options
        return await self._guarded(options, context, lambda call: self._explain(request, call), always=True)

    async def _explain(self, request: explain_pb2.ExplainRequest, call: Call) -> explain_pb2.ExplainResponse:
        if self._explainer is None:
            raise Unimplemented("This router explains nothing.")
        asked = await self._asked(request, call)
        return await _within(call, self._explainer.explain(call, asked, draining=self.draining))

    async def _asked(self, request: explain_pb2.ExplainRequest, call: Call) -> str:
        """Make the call that is to be explained, with the errors that it would get; the model as its client named it."""
        kind = request.call.WhichOneof("input")
        if kind is None:
            check_model(request.model)
            call.path = CHAT
            call.model = await self._model(call, request.model) or ""
            return request.model
        await self._fill(kind, request.call, call, stream=kind == "raw")
        if call.response_id:
            raise InvalidRequest("A stored response is not routed: the endpoint that made it is asked.", "raw.path")
        return call.model if kind == "raw" else str(getattr(request.call, kind).model)

    async def list_recent_calls(
        self, request: recent_calls_pb2.ListRecentCallsRequest, context: CallContext
    ) -> recent_calls_pb2.ListRecentCallsResponse:
        """The calls that finished last."""
        return await self._guarded(_NO_OPTIONS, context, lambda _: self._recent_calls(request), always=True)

    async def _recent_calls(self, request: recent_calls_pb2.ListRecentCallsRequest) -> recent_calls_pb2.ListRecentCallsResponse:
        return self._overview.recent_calls(request)

    async def reload(self, request: reload_pb2.ReloadRequest, context: CallContext) -> reload_pb2.ReloadResponse:
        """Load the configuration again."""
        return await self._guarded(_NO_OPTIONS, context, lambda call: _within(call, self._reload()))

    async def _reload(self) -> reload_pb2.ReloadResponse:
        reload = self.serving.reload
        if reload is None:
            raise Unimplemented("This router has its configuration from nowhere that it could be loaded from again.")
        return reload_pb2.ReloadResponse(report=reload_message(await reload()))

    # -- the call

    async def _guarded(
        self,
        options: options_pb2.CallOptions | Options,
        context: CallContext,
        serve: Callable[[Call], Awaitable[_Answer]],
        *,
        always: bool = False,
        limited: Request | None = None,
        body: bytes = b"",
    ) -> _Answer:
        """Make the call, serve it (while draining only if `always`), and turn whatever goes wrong into a CallFailed.

        `limited` is a request that counts, also against its user's limit, even when it never becomes a call; questions about
        the router do not. `body` is the call's, if it is not in the context.
        """
        plain = options if isinstance(options, Options) else options_of(options)
        call = self._call(plain, context, body or context.take_body())
        if not always:
            self._calls.begin(call)
        try:
            if self.draining and not always:
                raise Draining(DRAINING)
            check_options(plain)
            if not isinstance(options, Options):
                check_policies(options)
            check_identity(context)
            return await serve(call)
        except RouterError as error:
            if limited is not None and not call.receipt.finished_at:
                error = self._end_unseen(call, error, limited)
            raise failed(error, call.receipt, trace_id_of(call.trace)) from error
        except asyncio.CancelledError:
            if self._calls.ended_by_abort():
                raise failed(Draining(NOT_DONE), call.receipt, trace_id_of(call.trace)) from None
            raise
        except Exception as bug:  # the boundary: a client gets an identity, the log gets the rest
            _log.exception("bug", request_id=call.id)
            raise bug_in(call.receipt, trace_id_of(call.trace)) from bug
        finally:
            if not always:
                self._calls.end()

    @property
    def active(self) -> int:
        """Calls under way that a drain waits for: all but questions about the router."""
        return len(self._calls)

    @property
    def held(self) -> int:
        """Bytes of their bodies. O(calls)."""
        return sum(len(call.body) for call in self._calls)

    async def idle(self, seconds: float) -> bool:
        """Wait until no call is under way, for at most so many seconds; whether that came."""
        return await self._calls.idle(seconds)

    def abort(self) -> None:
        """End the calls under way with an error that says why, so that their clients get an end of their answers."""
        for call in self._calls.abort():
            call.aborted = True

    def _end_unseen(self, call: Call, error: RouterError, request: Request) -> RouterError:
        """Count and write down a call that was refused before the pipeline saw it; what it is refused with in the end."""
        call.user = call.user or user_of(request, call.body)
        error = self._metered(call, error)
        call.receipt.finished_at = self._clock()
        for recorder in self._recorders:
            recorder.begin(call)
            recorder.end(call, http_status(error), error)
        return error

    def _metered(self, call: Call, error: RouterError) -> RouterError:
        """A malformed request is a request; one that comes while draining is for another router to charge."""
        meter = self.serving.meter
        if meter is None:
            return error
        try:
            if isinstance(error, Draining):
                meter.show(call)
            else:
                meter.count(call)
        except RateLimited as limited:
            return limited
        return error

    def _call(self, options: Options, context: CallContext, body: bytes) -> Call:
        now = self._clock()
        user, address = identity(context, self.serving.proxies)
        given = options.request_id
        request_id = given if given and is_id(given) else new_request_id()
        return Call(
            id=request_id,
            receipt=Receipt(request_id, now),
            path="",
            body=body,
            content_type=JSON,
            model="",
            stream=False,
            started=now,
            user=bounded(user or options.user),
            unnamed=f"{ANONYMOUS}@{address}" if address else ANONYMOUS,
            prompt_cache_key=bounded(options.prompt_cache_key),
            priority=options.priority,
            fallback_allowed=options.fallback_allowed,
            resume_allowed=options.resume_allowed,
            deadline=None if context.timeout is None else now + context.timeout,
            trace=trace_of(context),
            flow=context.flow,
        )

    async def _fill(self, kind: str | None, asked: call_pb2.Call, call: Call, *, stream: bool) -> None:
        match kind:
            case "raw":
                call.body = call.body or asked.raw.body
                self._fill_raw(raw_of(asked.raw), call, stream=stream)
            case "chat":
                default = await self._model(call, asked.chat.model)
                self._set_body(call, CHAT, *chat_body(asked.chat, stream=stream, default_model=default))
            case "completion":
                default = await self._model(call, asked.completion.model)
                completion = completion_body(asked.completion, stream=stream, default_model=default)
                self._set_body(call, COMPLETIONS, *completion)
            case _:
                raise InvalidRequest("One of chat, completion and raw must be set.", "input")

    async def _model(self, call: Call, named: str) -> str | None:
        """The model that is named, else the default one, for which the backends may have to be asked."""
        return named or await _within(call, self.serving.default_model()) or None

    def _fill_raw(self, raw: RawCall, call: Call, *, stream: bool) -> None:
        if stored := stored_operation(raw.method, raw.path):
            self._fill_stored(raw, call, *stored)
            return
        if raw.path not in OPERATIONS or raw.method != "POST":
            raise NotFound(f"{raw.path[:200]} is not an endpoint that is relayed.")
        if len(raw.content_type) > MAX_CONTENT_TYPE_LENGTH:
            raise InvalidRequest(f"content_type takes at most {MAX_CONTENT_TYPE_LENGTH} characters.", "raw.content_type")
        call.content_type = raw.content_type or JSON
        if raw.headers:
            call.headers = _passed(raw, operation_of(raw.path))
        self._set_body(call, raw.path, call.body)
        if call.stream and not stream:
            raise InvalidRequest("The body asks for a stream: call Stream, not Generate.", "stream")

    def _fill_stored(self, raw: RawCall, call: Call, operation: Operation, response_id: str) -> None:
        if len(raw.query) > MAX_QUERY_LENGTH:
            raise InvalidRequest(f"The query takes at most {MAX_QUERY_LENGTH} characters.", "raw.query")
        call.path, call.body, call.method = operation.path, b"", raw.method
        call.response_id, call.resource = response_id, raw.path
        given = parse_qsl(raw.query, keep_blank_values=True)
        call.query = tuple((name, value) for name, value in given if name.removesuffix("[]") in operation.query)
        call.stream = operation.streams and dict(call.query).get("stream", "").lower() in ("true", "1")
        call.max_tokens = 0  # it has no output that its client would pay for

    def _set_body(self, call: Call, path: str, body: bytes, fields: Fields | None = None) -> None:
        """Give the call its body, and what that says, which is read from it where it is not handed over."""
        if len(body) > self._max_body_bytes:
            raise TooLarge(f"The body has {len(body)} bytes; at most {self._max_body_bytes} are taken.")
        call.path, call.body = path, body
        operation = operation_of(path)
        if fields is not None:
            pass
        elif operation.form and is_form(call.content_type):
            fields = inspect_multipart(call.content_type, body)
        else:
            call.body = body = without_bom(body)
            fields = inspect_json(path, body)
        call.model = fields.model or ""
        call.stream = fields.stream and operation.streams
        call.include_usage = fields.include_usage
        call.user = call.user or fields.user or ""
        call.prompt_cache_key = call.prompt_cache_key or fields.prompt_cache_key
        call.own_priority = fields.priority is not None
        call.max_tokens = fields.max_tokens
        call.choices = max(fields.n or 1, 1)

    async def _whole(self, call: Call, read: Callable[[Reply], _Answer]) -> _Answer:
        """Serve the call; its answer is read inside the pipeline, so that one that cannot be read counts as a failure."""
        sink = WholeAnswer(read)
        await self.serving.pipeline(call, sink)
        return sink.answer

    def _receipt(self, call: Call) -> receipt_pb2.Receipt:
        message = receipt_message(call.receipt)
        message.trace_id = trace_id_of(call.trace)
        return message


def _passed(raw: RawCall, operation: Operation) -> Headers:
    """The headers that the operation has; raises InvalidRequest for a long one."""
    passed = tuple((name, value) for name, value in raw.headers if name in operation.headers)
    if any(len(value) > MAX_HEADER_LENGTH for _, value in passed):
        raise InvalidRequest(f"A header takes at most {MAX_HEADER_LENGTH} characters.", "raw.headers")
    return passed


async def _within(call: Call, answer: Awaitable[_Answer]) -> _Answer:
    """Await an answer that does not pass the pipeline; raises DeadlineExceeded as the pipeline does."""
    try:
        async with asyncio.timeout_at(call.deadline):
            return await answer
    except TimeoutError:
        assert call.deadline is not None
        allowed = call.deadline - call.started
        raise DeadlineExceeded(f"The call was not done within its deadline of {allowed:.3g} s.") from None


_GENERATED: dict[str | None, Callable[[Reply], router_pb2.GenerateResponse]] = {
    "raw": lambda reply: router_pb2.GenerateResponse(raw=reply_message(reply)),
    "chat": lambda reply: router_pb2.GenerateResponse(chat=chat_response(reply.body)),
    "completion": lambda reply: router_pb2.GenerateResponse(completion=completion_response(reply.body)),
}
