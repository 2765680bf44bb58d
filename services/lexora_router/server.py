"""The service behind the contract: proto to domain and back, errors to statuses. Knows messages, but no transport.

`grpc_server` puts it on the wire; the facade may call it in process, with the same messages, deadlines and errors.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

import structlog
from google.protobuf.duration_pb2 import Duration

from lexora.v1 import (
    chat_pb2,
    common_pb2,
    embed_pb2,
    models_pb2,
    openai_pb2,
    router_pb2,
    stats_pb2,
)
from lexora_router.errors import (
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    NotFound,
    RouterError,
    TooLarge,
    Unimplemented,
    UpstreamInvalid,
    http_status,
)
from lexora_router.handler import Call, Event, Frames, Handler, Head, Receipt, Reply
from lexora_router.inspect_body import Fields, inspect_json, inspect_multipart
from lexora_router.layers.observe import Recorder
from lexora_router.overview import Overview
from lexora_router.status import StatusError, internal_status, status_of
from lexora_router.translate import (
    ChunkReader,
    CompletionChunkReader,
    chat_body,
    chat_response,
    completion_body,
    completion_response,
    embed_body,
    embed_response,
    usage_message,
)

MAX_ID_LENGTH = 128
MAX_USER_LENGTH = 256
# Longer ones would only make the engine refuse the head of its request.
MAX_TRACE_LENGTH = 2048
MAX_CONTENT_TYPE_LENGTH = 1024
# What fits into the metadata that a gRPC client accepts by default (8 KiB), beside the rest.
DEFAULT_ERROR_BYTES = 3072
JSON = "application/json"

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
MULTIPART_PATHS = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations"})
RELAYED_PATHS = MULTIPART_PATHS | frozenset(
    f"{CHAT} {COMPLETIONS} {EMBEDDINGS} /v1/responses /v1/messages /v1/rerank /rerank /v1/score /score "
    "/pooling /classify /tokenize /detokenize".split()
)

_NO_OPTIONS = common_pb2.CallOptions()

_log = structlog.get_logger("lexora.server")
_Answer = TypeVar("_Answer")


class Context(Protocol):
    """What surrounds a call: metadata (lower-case names) and the seconds left until its deadline, None for no limit."""

    @property
    def metadata(self) -> Iterable[tuple[str, str]]: ...  # noqa: D102

    @property
    def timeout(self) -> float | None: ...  # noqa: D102


Send = Callable[[router_pb2.StreamResponse], Awaitable[None]]


class RouterService:
    """Serves the rpcs of RouterService. Every method raises StatusError, and nothing else, for a failed call."""

    def __init__(
        self,
        pipeline: Handler,
        overview: Overview,
        *,
        recorders: tuple[Recorder, ...],
        max_body_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._pipeline = pipeline
        self._overview = overview
        self._recorders = recorders
        self._max_body_bytes = max_body_bytes
        self._clock = clock
        self.draining = False

    # -- generation

    async def generate(self, request: router_pb2.GenerateRequest, context: Context) -> router_pb2.GenerateResponse:
        """One request, one whole answer."""
        kind = request.WhichOneof("input")
        return await self._guarded(request.options, context, lambda call: self._generate(kind, request, call))

    async def _generate(self, kind: str | None, request: router_pb2.GenerateRequest, call: Call) -> router_pb2.GenerateResponse:
        await self._fill(kind, request, call, stream=False)
        response = await self._whole(call, _GENERATED[kind])
        response.receipt.CopyFrom(self._receipt(call))
        return response

    async def stream(self, request: router_pb2.StreamRequest, context: Context, send: Send) -> None:
        """One request, the answer as it is made."""
        kind = request.WhichOneof("input")
        await self._guarded(request.options, context, lambda call: self._stream(kind, request, call, send))

    async def _stream(self, kind: str | None, request: router_pb2.StreamRequest, call: Call, send: Send) -> None:
        await self._fill(kind, request, call, stream=True)
        sink = _StreamSink(kind, send, lambda: self._receipt(call))
        await self._pipeline(call, sink)
        await send(router_pb2.StreamResponse(receipt=self._receipt(call)))

    async def embed(self, request: embed_pb2.EmbedRequest, context: Context) -> embed_pb2.EmbedResponse:
        """Vectors for texts or token ids."""
        return await self._guarded(request.options, context, lambda call: self._embed(request, call))

    async def _embed(self, request: embed_pb2.EmbedRequest, call: Call) -> embed_pb2.EmbedResponse:
        model = await self._model(call, request.model)
        self._set_body(call, EMBEDDINGS, embed_body(request, model))
        response = await self._whole(call, lambda reply: embed_response(reply.body))
        response.receipt.CopyFrom(self._receipt(call))
        return response

    # -- overview

    async def classify(self, request: models_pb2.ClassifyRequest, context: Context) -> models_pb2.ClassifyResponse:
        """Not in this version."""
        return await self._guarded(request.options, context, self._classify)

    async def _classify(self, call: Call) -> models_pb2.ClassifyResponse:
        raise Unimplemented("Task classification is not part of this version; name the model yourself.")

    async def list_models(self, request: models_pb2.ListModelsRequest, context: Context) -> models_pb2.ListModelsResponse:
        """Exactly the routable models."""
        return await self._guarded(_NO_OPTIONS, context, lambda call: _within(call, self._overview.models()), always=True)

    async def health(self, request: models_pb2.HealthRequest, context: Context) -> models_pb2.HealthResponse:
        """State of the router and of each backend."""
        health = self._overview.health
        return await self._guarded(
            _NO_OPTIONS, context, lambda call: _within(call, health(draining=self.draining)), always=True
        )

    async def get_stats(self, request: stats_pb2.GetStatsRequest, context: Context) -> stats_pb2.GetStatsResponse:
        """Counters since the start."""
        return await self._guarded(_NO_OPTIONS, context, self._get_stats, always=True)

    async def _get_stats(self, call: Call) -> stats_pb2.GetStatsResponse:
        return self._overview.stats()

    # -- the call

    async def _guarded(
        self,
        options: common_pb2.CallOptions,
        context: Context,
        serve: Callable[[Call], Awaitable[_Answer]],
        *,
        always: bool = False,
    ) -> _Answer:
        """Make the call, serve it (while draining only if `always`), and turn whatever goes wrong into a StatusError."""
        call = self._call(options, context)
        try:
            if self.draining and not always:
                raise Draining("The router is shutting down; try another one.")
            _check_options(options)
            return await serve(call)
        except RouterError as error:
            self._record_unseen(call, error)
            raise StatusError(status_of(error, self._receipt(call), max_body=_error_bytes(context))) from error
        except asyncio.CancelledError:
            raise
        except Exception as bug:  # the boundary: a client gets an identity, the log gets the rest
            _log.exception("bug", request_id=call.id)
            raise StatusError(internal_status(call.id)) from bug

    def _record_unseen(self, call: Call, error: RouterError) -> None:
        """Count and write down a call that was refused before the pipeline saw it."""
        if call.receipt.finished_at:
            return
        call.receipt.finished_at = self._clock()
        for recorder in self._recorders:
            recorder.begin(call)
            recorder.end(call, http_status(error), error)

    def _call(self, options: common_pb2.CallOptions, context: Context) -> Call:
        now = self._clock()
        return Call(
            id=options.request_id if options.request_id and _is_id(options.request_id) else secrets.token_hex(16),
            path="",
            body=b"",
            content_type=JSON,
            model="",
            stream=False,
            started=now,
            user=options.user,
            deadline=None if context.timeout is None else now + context.timeout,
            trace=tuple({name: value for name, value in context.metadata if _is_trace(name, value)}.items()),
        )

    async def _fill(
        self, kind: str | None, request: router_pb2.GenerateRequest | router_pb2.StreamRequest, call: Call, *, stream: bool
    ) -> None:
        match kind:
            case "openai":
                self._fill_openai(request.openai, call, stream=stream)
            case "chat":
                default = await self._model(call, request.chat.model)
                self._set_body(call, CHAT, chat_body(request.chat, stream=stream, default_model=default))
            case "completion":
                default = await self._model(call, request.completion.model)
                body = completion_body(request.completion, stream=stream, default_model=default)
                self._set_body(call, COMPLETIONS, body)
            case _:
                raise InvalidRequest("One of chat, completion and openai must be set.", "input")

    async def _model(self, call: Call, named: str) -> str | None:
        """The model that is named, else the default one, for which the backends may have to be asked."""
        return named or await _within(call, self._overview.default_model()) or None

    def _fill_openai(self, openai: openai_pb2.OpenAiCall, call: Call, *, stream: bool) -> None:
        if openai.path not in RELAYED_PATHS:
            raise NotFound(f"{openai.path[:200]} is not an endpoint that is relayed.")
        if len(openai.content_type) > MAX_CONTENT_TYPE_LENGTH:
            raise InvalidRequest(f"content_type takes at most {MAX_CONTENT_TYPE_LENGTH} characters.", "openai.content_type")
        call.content_type = openai.content_type or JSON
        self._set_body(call, openai.path, openai.body)
        if call.stream and not stream:
            raise InvalidRequest("The body asks for a stream: call Stream, not Generate.", "stream")

    def _set_body(self, call: Call, path: str, body: bytes) -> None:
        if len(body) > self._max_body_bytes:
            raise TooLarge(f"The body has {len(body)} bytes; at most {self._max_body_bytes} are taken.")
        call.path, call.body = path, body
        fields = _inspect(path, call.content_type, body)
        call.model = fields.model or ""
        call.stream = fields.stream
        call.include_usage = fields.include_usage
        call.user = call.user or (fields.user or "")[:MAX_USER_LENGTH]

    async def _whole(self, call: Call, read: Callable[[Reply], _Answer]) -> _Answer:
        """Serve the call; its answer is read inside the pipeline, so that one that cannot be read counts as a failure."""
        answers: list[_Answer] = []

        async def keep(event: Event) -> None:
            if not isinstance(event, Reply):
                raise UpstreamInvalid("The engine sent a stream where a whole answer was asked for.")
            answers.append(read(event))

        await self._pipeline(call, keep)
        return answers[0]

    def _receipt(self, call: Call) -> common_pb2.Receipt:
        return receipt_message(call.id, call.started, call.receipt)


class _StreamSink:
    """Sends a call's events as messages, in the form of the request; the head travels with the first frames."""

    def __init__(self, kind: str | None, send: Send, receipt: Callable[[], common_pb2.Receipt]) -> None:
        self._send = send
        self._receipt = receipt
        self._reader = _reader(kind)
        self._head: Head | None = None

    async def __call__(self, event: Event) -> None:
        if isinstance(event, Frames):
            if self._reader is not None:
                await self._send_typed(event)
            elif self._head is None:
                await self._send(router_pb2.StreamResponse(frames=event.data))
            else:
                head, self._head = _head(self._head), None
                await self._send(router_pb2.StreamResponse(receipt=self._receipt(), head=head, frames=event.data))
        elif isinstance(event, Head):
            self._head = event
        elif self._reader is not None:
            raise UpstreamInvalid("The engine sent a whole answer where a stream was asked for.")
        else:
            await self._send(router_pb2.StreamResponse(receipt=self._receipt(), reply=_reply(event)))

    async def _send_typed(self, frames: Frames) -> None:
        assert self._reader is not None
        for chunk in self._reader.feed(frames.data):
            receipt, self._head = (self._receipt() if self._head is not None else None), None
            if isinstance(chunk, chat_pb2.ChatChunk):
                await self._send(router_pb2.StreamResponse(receipt=receipt, chat=chunk))
            else:
                await self._send(router_pb2.StreamResponse(receipt=receipt, completion=chunk))


async def _within(call: Call, answer: Awaitable[_Answer]) -> _Answer:
    """Await an answer that does not pass the pipeline; raises DeadlineExceeded as the pipeline does."""
    try:
        async with asyncio.timeout_at(call.deadline):
            return await answer
    except TimeoutError:
        assert call.deadline is not None
        allowed = call.deadline - call.started
        raise DeadlineExceeded(f"The call was not done within its deadline of {allowed:.3g} s.") from None


def _reader(kind: str | None) -> ChunkReader | CompletionChunkReader | None:
    match kind:
        case "chat":
            return ChunkReader()
        case "completion":
            return CompletionChunkReader()
    return None


def receipt_message(request_id: str, started: float, receipt: Receipt) -> common_pb2.Receipt:
    """The receipt as the contract has it: instants become durations since the call came in."""
    message = common_pb2.Receipt(
        request_id=request_id,
        backend=receipt.backend,
        endpoint=receipt.endpoint,
        model=receipt.model,
        attempts=receipt.attempts,
        usage=usage_message(receipt.usage),
    )
    for instant, duration in (
        (receipt.dispatched_at, message.queue_time),
        (receipt.first_event_at, message.time_to_first_token),
        (receipt.finished_at, message.total_time),
    ):
        if instant:
            _set_duration(duration, instant - started)
    return message


def _set_duration(message: Duration, seconds: float) -> None:
    message.seconds, message.nanos = divmod(round(seconds * 1e9), 1_000_000_000)


def _inspect(path: str, content_type: str, body: bytes) -> Fields:
    if path in MULTIPART_PATHS and content_type.startswith("multipart/"):
        return inspect_multipart(content_type, body)
    return inspect_json(path, body)


def _check_options(options: common_pb2.CallOptions) -> None:
    if not _is_id(options.request_id):
        raise InvalidRequest(f"request_id takes at most {MAX_ID_LENGTH} visible ASCII characters.", "options.request_id")
    if len(options.user) > MAX_USER_LENGTH:
        raise InvalidRequest(f"user takes at most {MAX_USER_LENGTH} characters.", "options.user")


def _is_id(name: str) -> bool:
    return len(name) <= MAX_ID_LENGTH and name.isascii() and name.isprintable() and " " not in name


def _is_trace(name: str, value: str) -> bool:
    return name in ("traceparent", "tracestate") and len(value) <= MAX_TRACE_LENGTH


def _error_bytes(context: Context) -> int:
    """How much of an upstream's error the caller can take; our own facade says, stock clients get the safe default."""
    for name, value in context.metadata:
        if name == "x-lexora-error-bytes" and value.isdigit():
            return min(int(value), 1024 * 1024)
    return DEFAULT_ERROR_BYTES


def _head(head: Head) -> openai_pb2.OpenAiHead:
    return openai_pb2.OpenAiHead(
        status=head.status,
        content_type=head.content_type,
        headers=[common_pb2.Header(name=name, value=value) for name, value in head.headers],
    )


def _reply(reply: Reply) -> openai_pb2.OpenAiReply:
    return openai_pb2.OpenAiReply(head=_head(reply.head), body=reply.body)


_GENERATED: dict[str | None, Callable[[Reply], router_pb2.GenerateResponse]] = {
    "openai": lambda reply: router_pb2.GenerateResponse(openai=_reply(reply)),
    "chat": lambda reply: router_pb2.GenerateResponse(chat=chat_response(reply.body)),
    "completion": lambda reply: router_pb2.GenerateResponse(completion=completion_response(reply.body)),
}
