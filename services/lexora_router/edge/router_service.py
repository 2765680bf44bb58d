"""The rpcs of RouterService: proto to domain and back. Handles messages, and no transport."""

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from lexora.v1 import call_pb2, classify_pb2, embed_pb2, health_pb2, models_pb2, principal_pb2, receipt_pb2, router_pb2
from lexora_contract.answer import Reply
from lexora_contract.escape import escaped
from lexora_contract.limits import MAX_REFUSAL
from lexora_contract.messages import fill_receipt, fill_reply
from lexora_contract.operations import EMBEDDINGS
from lexora_contract.port import CallContext, ClientSink, Options, RawCall, Send
from lexora_contract.rpcs import (
    CLASSIFY,
    EMBED,
    GENERATE,
    GET_MODEL,
    GET_PRINCIPAL,
    HEALTH,
    LIST_MODELS,
    REPORT_REFUSAL,
    STREAM,
)
from lexora_router.call import Call, WholeAnswer
from lexora_router.edge.call_context import announces_streams
from lexora_router.edge.call_inputs import CallInputs
from lexora_router.edge.classify import classify
from lexora_router.edge.guard import Guard, within
from lexora_router.edge.introspection import Overview
from lexora_router.edge.principal_message import principal_message
from lexora_router.edge.requests import fill_raw, set_body
from lexora_router.edge.stream_sink import StreamSink
from lexora_router.edge.translate import chat_response, completion_response, embed_body, embed_response
from lexora_router.edge.whole_overview import WholeOverview
from lexora_router.errors import InvalidRequest
from lexora_router.telemetry.trace_context import trace_id_of

# What a call that a facade refused may have been answered with.
MIN_REFUSAL, MAX_HTTP_STATUS = 400, 599
_NO_OPTIONS = Options()

_Answer = TypeVar("_Answer")


class RouterService:
    """Serves the rpcs of RouterService. Every method raises CallFailed, and nothing else, for a failed call."""

    def __init__(self, guard: Guard, overview: Overview, inputs: CallInputs, *, whole: WholeOverview | None = None) -> None:
        self.guard = guard
        self._overview = overview
        self._whole_overview = WholeOverview(overview) if whole is None else whole
        self._inputs = inputs
        self._max_body_bytes = inputs.max_body_bytes

    # -- generation

    async def generate(self, request: router_pb2.GenerateRequest, context: CallContext) -> router_pb2.GenerateResponse:
        """One request, one whole answer."""
        asked = request.call
        kind = asked.WhichOneof("input")
        serve = partial(self._generate, kind, asked)
        return await self.guard.guarded(GENERATE, asked.options, context, serve, limited=asked)

    async def _generate(self, kind: str | None, asked: call_pb2.Call, call: Call) -> router_pb2.GenerateResponse:
        await self._inputs.fill(kind, asked, call, stream=False)
        response = await self._whole(call, _GENERATED[kind])
        put_receipt(call, response.receipt)
        return response

    async def stream(self, request: router_pb2.StreamRequest, context: CallContext, send: Send) -> None:
        """One request, the answer as it is made."""
        asked = request.call
        serve = partial(self._stream, asked.WhichOneof("input"), asked, send, announces_streams(context))
        await self.guard.guarded(STREAM, asked.options, context, serve, limited=asked)

    async def _stream(self, kind: str | None, asked: call_pb2.Call, send: Send, announced: bool, call: Call) -> None:
        await self._inputs.fill(kind, asked, call, stream=True)
        if announced and call.stream:
            announcement = router_pb2.StreamResponse()
            put_receipt(call, announcement.started.receipt)
            await send(announcement)
        sink = StreamSink(kind, send, partial(put_receipt, call), call.flow)
        try:
            await self.guard.serving.pipeline(call, sink)
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
        return self.guard.guarded(STREAM, call.options, context, serve, limited=call, body=call.take_body())

    def _relay(self, raw: RawCall, sink: ClientSink, call: Call) -> Awaitable[None]:
        fill_raw(call, raw, stream=True, max_body=self._max_body_bytes)
        sink.accepted(call.receipt, streams=call.stream)
        return self.guard.serving.pipeline(call, sink)

    async def report_refusal(
        self, request: router_pb2.ReportRefusalRequest, context: CallContext
    ) -> router_pb2.ReportRefusalResponse:
        """Count a call that the facade has refused."""
        return await self.guard.guarded(
            REPORT_REFUSAL, request.options, context, lambda call: self._report_refusal(request, call), limited=call_pb2.Call()
        )

    async def _report_refusal(self, request: router_pb2.ReportRefusalRequest, call: Call) -> router_pb2.ReportRefusalResponse:
        if not MIN_REFUSAL <= request.http_status <= MAX_HTTP_STATUS:
            raise InvalidRequest(f"http_status must be {MIN_REFUSAL} to {MAX_HTTP_STATUS}.", "http_status")
        refusal = InvalidRequest(escaped(request.message[:MAX_REFUSAL]))
        error = self.guard.end_unseen(call, refusal, call_pb2.Call(), request.http_status)
        if error is not refusal:
            raise error
        response = router_pb2.ReportRefusalResponse()
        put_receipt(call, response.receipt)
        return response

    async def embed(self, request: embed_pb2.EmbedRequest, context: CallContext) -> embed_pb2.EmbedResponse:
        """Vectors for texts or token ids."""
        return await self.guard.guarded(
            EMBED, request.options, context, lambda call: self._embed(request, call), limited=request
        )

    async def _embed(self, request: embed_pb2.EmbedRequest, call: Call) -> embed_pb2.EmbedResponse:
        model = await self._inputs.model(call, request.model)
        set_body(call, EMBEDDINGS, *embed_body(request, model), max_body=self._max_body_bytes)
        response = await self._whole(call, lambda reply: embed_response(reply.body))
        put_receipt(call, response.receipt)
        return response

    # -- overview

    async def classify(self, request: classify_pb2.ClassifyRequest, context: CallContext) -> classify_pb2.ClassifyResponse:
        """Which model fits a task."""
        return await self.guard.guarded(
            CLASSIFY,
            request.options,
            context,
            lambda call: classify(request, call, self.guard.serving.classify),
            limited=request,
        )

    async def list_models(self, request: models_pb2.ListModelsRequest, context: CallContext) -> models_pb2.ListModelsResponse:
        """Exactly the routable models."""
        return await self.guard.guarded(
            LIST_MODELS,
            _NO_OPTIONS,
            context,
            lambda call: within(call, self._overview.models(request, call.principal)),
            always=True,
        )

    async def get_model(self, request: models_pb2.GetModelRequest, context: CallContext) -> models_pb2.GetModelResponse:
        """One of them."""
        return await self.guard.guarded(
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
        return await self.guard.guarded(GET_PRINCIPAL, _NO_OPTIONS, context, self._get_principal, always=True)

    async def _get_principal(self, call: Call) -> principal_pb2.GetPrincipalResponse:
        return principal_message(call.principal)

    async def health(self, request: health_pb2.HealthRequest, context: CallContext) -> health_pb2.HealthResponse:
        """State of the router and of each backend."""
        health = self._whole_overview.health
        return await self.guard.guarded(
            HEALTH, _NO_OPTIONS, context, lambda call: within(call, health(draining=self.guard.draining)), always=True
        )

    async def _whole(self, call: Call, read: Callable[[Reply], _Answer]) -> _Answer:
        """Serve the call; its answer is read inside the pipeline, so that one that cannot be read counts as a failure."""
        sink = WholeAnswer(read)
        await self.guard.serving.pipeline(call, sink)
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
