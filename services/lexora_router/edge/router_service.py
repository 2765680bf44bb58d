"""The service behind the contract: proto to domain and back, errors to statuses. Handles messages, and no transport.

`grpc_server` puts it on the wire; the facade may call it in process, with the same messages, deadlines and errors.
"""

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, NoReturn, TypeVar

from lexora.v1 import (
    audit_pb2,
    call_pb2,
    classify_pb2,
    embed_pb2,
    explain_pb2,
    health_pb2,
    models_pb2,
    principal_pb2,
    receipt_pb2,
    recent_calls_pb2,
    reload_pb2,
    router_pb2,
    stats_pb2,
)
from lexora_contract.answer import Reply
from lexora_contract.escape import escaped
from lexora_contract.limits import MAX_REFUSAL
from lexora_contract.messages import fill_receipt, fill_reply, raw_of
from lexora_contract.operations import CHAT, COMPLETIONS, EMBEDDINGS
from lexora_contract.port import CallContext, ClientSink, Options, RawCall, Send
from lexora_contract.rpcs import (
    CLASSIFY,
    EMBED,
    EXPLAIN,
    GENERATE,
    GET_MODEL,
    GET_PRINCIPAL,
    GET_STATS,
    HEALTH,
    LIST_AUDIT_EVENTS,
    LIST_MODELS,
    LIST_RECENT_CALLS,
    RELOAD,
    REPORT_REFUSAL,
    RPCS,
    STREAM,
    Rpc,
)
from lexora_router.access.audit import AuditLog
from lexora_router.call import Call, WholeAnswer
from lexora_router.edge.audit_messages import audit_page
from lexora_router.edge.call_context import (
    announces_streams,
)
from lexora_router.edge.classify import classify
from lexora_router.edge.explain import Explainer
from lexora_router.edge.guard import within
from lexora_router.edge.introspection import Overview
from lexora_router.edge.key_rpcs import KeyRpcs
from lexora_router.edge.principal_message import principal_message
from lexora_router.edge.requests import fill_raw, set_body
from lexora_router.edge.serving import Serving
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
    InvalidRequest,
    Unimplemented,
)
from lexora_router.layers.authorize import default_of
from lexora_router.layers.observe import Recorder
from lexora_router.payload.fields import check_model
from lexora_router.telemetry.trace_context import trace_id_of

# What a call that a facade refused may have been answered with.
MIN_REFUSAL, MAX_HTTP_STATUS = 400, 599
_NO_OPTIONS = Options()

_Answer = TypeVar("_Answer")


class RouterService(KeyRpcs):
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
        audit: AuditLog | None = None,
    ) -> None:
        super().__init__(serving, recorders=recorders, clock=clock, audit=audit)
        self._overview = overview
        self._max_body_bytes = max_body_bytes
        self._explainer = explainer

    # -- generation

    async def generate(self, request: router_pb2.GenerateRequest, context: CallContext) -> router_pb2.GenerateResponse:
        """One request, one whole answer."""
        asked = request.call
        kind = asked.WhichOneof("input")
        serve = partial(self._generate, kind, asked)
        return await self.guarded(GENERATE, asked.options, context, serve, limited=asked)

    async def _generate(self, kind: str | None, asked: call_pb2.Call, call: Call) -> router_pb2.GenerateResponse:
        await self._fill(kind, asked, call, stream=False)
        response = await self._whole(call, _GENERATED[kind])
        put_receipt(call, response.receipt)
        return response

    async def stream(self, request: router_pb2.StreamRequest, context: CallContext, send: Send) -> None:
        """One request, the answer as it is made."""
        asked = request.call
        serve = partial(self._stream, asked.WhichOneof("input"), asked, send, announces_streams(context))
        await self.guarded(STREAM, asked.options, context, serve, limited=asked)

    async def _stream(self, kind: str | None, asked: call_pb2.Call, send: Send, announced: bool, call: Call) -> None:
        await self._fill(kind, asked, call, stream=True)
        if announced and call.stream:
            announcement = router_pb2.StreamResponse()
            put_receipt(call, announcement.started.receipt)
            await send(announcement)
        sink = StreamSink(kind, send, partial(put_receipt, call), call.flow)
        try:
            await self.serving.pipeline(call, sink)
            await sink.end()
        except BaseException as end:
            # grpc sends no status after a first write that was cancelled: one under way comes to its end before any error.
            if call.aborted or not isinstance(end, CancelledError):
                await sink.flush()
            raise
        finally:
            sink.close()

    def relay(self, call: RawCall, context: CallContext, sink: ClientSink) -> Coroutine[Any, Any, None]:
        """One request in the engine's own bytes; its answer goes to `sink` as it is made, and has gone at the return."""
        serve = partial(self._relay, call, sink)
        return self.guarded(STREAM, call.options, context, serve, limited=call, body=call.take_body())

    def _relay(self, raw: RawCall, sink: ClientSink, call: Call) -> Awaitable[None]:
        fill_raw(call, raw, stream=True, max_body=self._max_body_bytes)
        sink.accepted(call.receipt, streams=call.stream)
        return self.serving.pipeline(call, sink)

    async def report_refusal(
        self, request: router_pb2.ReportRefusalRequest, context: CallContext
    ) -> router_pb2.ReportRefusalResponse:
        """Count a call that the facade has refused."""
        return await self.guarded(
            REPORT_REFUSAL, request.options, context, lambda call: self._report_refusal(request, call), limited=call_pb2.Call()
        )

    async def _report_refusal(self, request: router_pb2.ReportRefusalRequest, call: Call) -> router_pb2.ReportRefusalResponse:
        if not MIN_REFUSAL <= request.http_status <= MAX_HTTP_STATUS:
            raise InvalidRequest(f"http_status must be {MIN_REFUSAL} to {MAX_HTTP_STATUS}.", "http_status")
        refusal = InvalidRequest(escaped(request.message[:MAX_REFUSAL]))
        error = self.end_unseen(call, refusal, call_pb2.Call(), request.http_status)
        if error is not refusal:
            raise error
        response = router_pb2.ReportRefusalResponse()
        put_receipt(call, response.receipt)
        return response

    async def embed(self, request: embed_pb2.EmbedRequest, context: CallContext) -> embed_pb2.EmbedResponse:
        """Vectors for texts or token ids."""
        return await self.guarded(EMBED, request.options, context, lambda call: self._embed(request, call), limited=request)

    async def _embed(self, request: embed_pb2.EmbedRequest, call: Call) -> embed_pb2.EmbedResponse:
        model = await self._model(call, request.model)
        set_body(call, EMBEDDINGS, *embed_body(request, model), max_body=self._max_body_bytes)
        response = await self._whole(call, lambda reply: embed_response(reply.body))
        put_receipt(call, response.receipt)
        return response

    async def refuse_undecodable(self, method: str, context: CallContext) -> None:
        """A request whose bytes are no message of `method`, /service/rpc: refused, and counted as any malformed request.

        Questions about the router, and what belongs to other services, are refused without being counted.
        """

        def refuse(_: Call) -> NoReturn:
            raise InvalidRequest(f"The request does not decode: its bytes are no message that {method} takes.")

        counted = method in RPCS and RPCS[method].counted
        await self.guarded(
            RPCS.get(method, HEALTH),
            _NO_OPTIONS,
            context,
            refuse,
            always=not counted,
            limited=call_pb2.Call() if counted else None,
        )

    async def foresee(self, rpc: Rpc[Any, Any], options: Options, context: CallContext, size: int) -> None:
        """Raise CallFailed for a call that would be refused whatever its body of `size` bytes says, and count it then."""

        async def foresee(call: Call) -> None:
            if rpc.counted and self.serving.foresee is not None:
                self.serving.foresee(call, size)

        limited = call_pb2.Call() if rpc.counted else None
        await self.guarded(rpc, options, context, foresee, always=not rpc.counted, limited=limited)

    # -- overview

    async def classify(self, request: classify_pb2.ClassifyRequest, context: CallContext) -> classify_pb2.ClassifyResponse:
        """Which model fits a task."""
        return await self.guarded(
            CLASSIFY, request.options, context, lambda call: classify(request, call, self.serving.classify), limited=request
        )

    async def list_models(self, request: models_pb2.ListModelsRequest, context: CallContext) -> models_pb2.ListModelsResponse:
        """Exactly the routable models."""
        return await self.guarded(
            LIST_MODELS,
            _NO_OPTIONS,
            context,
            lambda call: within(call, self._overview.models(request, call.principal)),
            always=True,
        )

    async def get_model(self, request: models_pb2.GetModelRequest, context: CallContext) -> models_pb2.GetModelResponse:
        """One of them."""
        return await self.guarded(
            GET_MODEL,
            _NO_OPTIONS,
            context,
            lambda call: within(call, self._overview.model(request.id, call.principal)),
            always=True,
        )

    async def get_principal(
        self, request: principal_pb2.GetPrincipalRequest, context: CallContext
    ) -> principal_pb2.GetPrincipalResponse:
        """The caller, as its credentials say."""
        return await self.guarded(GET_PRINCIPAL, _NO_OPTIONS, context, self._get_principal, always=True)

    async def _get_principal(self, call: Call) -> principal_pb2.GetPrincipalResponse:
        return principal_message(call.principal)

    async def health(self, request: health_pb2.HealthRequest, context: CallContext) -> health_pb2.HealthResponse:
        """State of the router and of each backend."""
        health = self._overview.health
        return await self.guarded(
            HEALTH, _NO_OPTIONS, context, lambda call: within(call, health(draining=self.draining)), always=True
        )

    async def get_stats(self, request: stats_pb2.GetStatsRequest, context: CallContext) -> stats_pb2.GetStatsResponse:
        """Counters since the start."""
        return await self.guarded(GET_STATS, _NO_OPTIONS, context, self._get_stats, always=True)

    async def _get_stats(self, call: Call) -> stats_pb2.GetStatsResponse:
        return self._overview.stats()

    async def explain(self, request: explain_pb2.ExplainRequest, context: CallContext) -> explain_pb2.ExplainResponse:
        """Where a call would go and why."""
        options = request.call.options
        return await self.guarded(EXPLAIN, options, context, lambda call: self._explain(request, call), always=True)

    async def _explain(self, request: explain_pb2.ExplainRequest, call: Call) -> explain_pb2.ExplainResponse:
        if self._explainer is None:
            raise Unimplemented("This router explains nothing.")
        asked = await self._asked(request, call)
        return await within(call, self._explainer.explain(call, asked, draining=self.draining))

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
        return await self.guarded(LIST_RECENT_CALLS, _NO_OPTIONS, context, lambda _: self._recent_calls(request), always=True)

    async def _recent_calls(self, request: recent_calls_pb2.ListRecentCallsRequest) -> recent_calls_pb2.ListRecentCallsResponse:
        return self._overview.recent_calls(request)

    async def reload(self, request: reload_pb2.ReloadRequest, context: CallContext) -> reload_pb2.ReloadResponse:
        """Load the configuration again."""
        return await self.administered(RELOAD, context, lambda call: within(call, self._reload()))

    async def _reload(self) -> reload_pb2.ReloadResponse:
        reload = self.serving.reload
        if reload is None:
            raise Unimplemented("This router has its configuration from nowhere that it could be loaded from again.")
        return reload_pb2.ReloadResponse(report=reload_message(await reload()))

    async def list_audit_events(
        self, request: audit_pb2.ListAuditEventsRequest, context: CallContext
    ) -> audit_pb2.ListAuditEventsResponse:
        """What was done of late."""

        async def serve(_: Call) -> audit_pb2.ListAuditEventsResponse:
            return audit_page(self._audit.events, request)

        return await self.administered(LIST_AUDIT_EVENTS, context, serve, always=True)

    # -- the call

    async def _fill(self, kind: str | None, asked: call_pb2.Call, call: Call, *, stream: bool) -> None:
        match kind:
            case "raw":
                call.body = call.body or asked.raw.body
                fill_raw(call, raw_of(asked.raw), stream=stream, max_body=self._max_body_bytes)
            case "chat":
                default = await self._model(call, asked.chat.model)
                set_body(
                    call, CHAT, *chat_body(asked.chat, stream=stream, default_model=default), max_body=self._max_body_bytes
                )
            case "completion":
                default = await self._model(call, asked.completion.model)
                completion = completion_body(asked.completion, stream=stream, default_model=default)
                set_body(call, COMPLETIONS, *completion, max_body=self._max_body_bytes)
            case _:
                raise InvalidRequest("One of chat, completion and raw must be set.", "input")

    async def _model(self, call: Call, named: str) -> str | None:
        """The model that is named, else the default one, for which the backends may have to be asked."""
        return named or default_of(call.principal, await within(call, self.serving.default_model())) or None

    async def _whole(self, call: Call, read: Callable[[Reply], _Answer]) -> _Answer:
        """Serve the call; its answer is read inside the pipeline, so that one that cannot be read counts as a failure."""
        sink = WholeAnswer(read)
        await self.serving.pipeline(call, sink)
        return sink.answer


def put_receipt(call: Call, message: receipt_pb2.Receipt) -> None:
    """Write the receipt of a call, as far as it has come, into an empty message."""
    fill_receipt(message, call.receipt)
    message.trace_id = trace_id_of(call.trace)


def _raw_response(reply: Reply) -> router_pb2.GenerateResponse:
    response = router_pb2.GenerateResponse()
    fill_reply(response.raw, reply)
    return response


_GENERATED: dict[str | None, Callable[[Reply], router_pb2.GenerateResponse]] = {
    "raw": _raw_response,
    "chat": lambda reply: router_pb2.GenerateResponse(chat=chat_response(reply.body)),
    "completion": lambda reply: router_pb2.GenerateResponse(completion=completion_response(reply.body)),
}
