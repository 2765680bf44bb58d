"""The service behind the contract: proto to domain and back, errors to statuses. Knows messages, but no transport.

`grpc_server` puts it on the wire; the facade may call it in process, with the same messages, deadlines and errors.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar

import structlog

from lexora.v1 import (
    calls_pb2,
    common_pb2,
    embed_pb2,
    explain_pb2,
    models_pb2,
    openai_pb2,
    reload_pb2,
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
from lexora_router.handler import Call, Event, Handler, Reply
from lexora_router.inspect_body import Fields, inspect_json, inspect_multipart
from lexora_router.layers.observe import NOT_DONE, Recorder
from lexora_router.messages import receipt_message, reply_message
from lexora_router.overview import Overview
from lexora_router.policy.priority import HIGH, LOW
from lexora_router.status import StatusError, internal_status, status_of
from lexora_router.stream_sink import Send, StreamSink
from lexora_router.translate import (
    chat_body,
    chat_response,
    completion_body,
    completion_response,
    embed_body,
    embed_response,
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
_FALLBACK_POLICIES = frozenset(common_pb2.FallbackPolicy.values())
_RESUME_POLICIES = frozenset(common_pb2.ResumePolicy.values())

_log = structlog.get_logger("lexora.server")
_Answer = TypeVar("_Answer")


class Context(Protocol):
    """What surrounds a call: metadata (lower-case names) and the seconds left until its deadline, None for no limit."""

    @property
    def metadata(self) -> Iterable[tuple[str, str]]: ...  # noqa: D102

    @property
    def timeout(self) -> float | None: ...  # noqa: D102


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
        self.pipeline = pipeline  # a reload puts another one here
        self.reloader: Callable[[], Awaitable[object]] | None = None  # set by who knows where the configuration is from
        self._calls: dict[asyncio.Task[Any], Call] = {}
        self._idle: asyncio.Event | None = None
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
        sink = StreamSink(kind, send, lambda: self._receipt(call))
        await self.pipeline(call, sink)
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

    async def explain(self, request: explain_pb2.ExplainRequest, context: Context) -> explain_pb2.ExplainResponse:
        """Where a call would go and why."""
        return await self._guarded(request.options, context, self._explain, always=True)

    async def _explain(self, call: Call) -> explain_pb2.ExplainResponse:
        raise Unimplemented("Explanations are not part of this version.")

    async def recent_calls(self, request: calls_pb2.RecentCallsRequest, context: Context) -> calls_pb2.RecentCallsResponse:
        """The calls that finished last."""
        return await self._guarded(_NO_OPTIONS, context, self._recent_calls, always=True)

    async def _recent_calls(self, call: Call) -> calls_pb2.RecentCallsResponse:
        raise Unimplemented("Recent calls are not part of this version.")

    async def reload(self, request: reload_pb2.ReloadRequest, context: Context) -> reload_pb2.ReloadResponse:
        """Load the configuration again."""
        return await self._guarded(_NO_OPTIONS, context, lambda call: _within(call, self._reload()))

    async def _reload(self) -> reload_pb2.ReloadResponse:
        if self.reloader is None:
            raise Unimplemented("This router has its configuration from nowhere that it could be loaded from again.")
        await self.reloader()
        return reload_pb2.ReloadResponse(report=self._overview.last_reload())

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
        task = asyncio.current_task()
        assert task is not None
        if not always:
            self._calls[task] = call
        try:
            if self.draining and not always:
                raise Draining("The router is shutting down; try another one.")
            _check_options(options)
            return await serve(call)
        except RouterError as error:
            self._record_unseen(call, error)
            raise StatusError(status_of(error, self._receipt(call), max_body=_error_bytes(context))) from error
        except asyncio.CancelledError:
            # A client that left at the same moment has cancelled the task once more: then nobody needs an answer.
            if call.aborted and task.uncancel() == 0:
                raise StatusError(status_of(Draining(NOT_DONE), self._receipt(call), max_body=0)) from None
            raise
        except Exception as bug:  # the boundary: a client gets an identity, the log gets the rest
            _log.exception("bug", request_id=call.id)
            raise StatusError(internal_status(call.id)) from bug
        finally:
            self._calls.pop(task, None)
            if not self._calls and self._idle is not None:
                self._idle.set()

    @property
    def active(self) -> int:
        """Calls under way that a drain waits for: all but questions about the router."""
        return len(self._calls)

    async def idle(self, seconds: float) -> bool:
        """Wait until no call is under way, for at most so many seconds; whether that came."""
        try:
            async with asyncio.timeout(seconds):
                while self._calls:
                    self._idle = asyncio.Event()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def abort(self) -> None:
        """End the calls under way with an error that says why, so that their clients get an end of their answers."""
        for task, call in self._calls.items():
            if not call.aborted:
                call.aborted = True
                task.cancel()

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
            priority=options.priority if options.HasField("priority") else None,
            fallback_allowed=options.fallback != common_pb2.FALLBACK_POLICY_NEVER,
            resume_allowed=options.resume != common_pb2.RESUME_POLICY_NEVER,
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
        call.own_priority = fields.priority is not None
        call.max_tokens = fields.max_tokens
        call.choices = max(fields.n or 1, 1)

    async def _whole(self, call: Call, read: Callable[[Reply], _Answer]) -> _Answer:
        """Serve the call; its answer is read inside the pipeline, so that one that cannot be read counts as a failure."""
        answers: list[_Answer] = []

        async def keep(event: Event) -> None:
            if not isinstance(event, Reply):
                raise UpstreamInvalid("The engine sent a stream where a whole answer was asked for.")
            answers.append(read(event))

        await self.pipeline(call, keep)
        return answers[0]

    def _receipt(self, call: Call) -> common_pb2.Receipt:
        return receipt_message(call.id, call.started, call.receipt)


async def _within(call: Call, answer: Awaitable[_Answer]) -> _Answer:
    """Await an answer that does not pass the pipeline; raises DeadlineExceeded as the pipeline does."""
    try:
        async with asyncio.timeout_at(call.deadline):
            return await answer
    except TimeoutError:
        assert call.deadline is not None
        allowed = call.deadline - call.started
        raise DeadlineExceeded(f"The call was not done within its deadline of {allowed:.3g} s.") from None


def _inspect(path: str, content_type: str, body: bytes) -> Fields:
    if path in MULTIPART_PATHS and content_type.startswith("multipart/"):
        return inspect_multipart(content_type, body)
    return inspect_json(path, body)


def _check_options(options: common_pb2.CallOptions) -> None:
    if not _is_id(options.request_id):
        raise InvalidRequest(f"request_id takes at most {MAX_ID_LENGTH} visible ASCII characters.", "options.request_id")
    if options.HasField("priority") and not LOW <= options.priority <= HIGH:
        raise InvalidRequest(f"priority must be {LOW} to {HIGH}.", "options.priority")
    if len(options.user) > MAX_USER_LENGTH:
        raise InvalidRequest(f"user takes at most {MAX_USER_LENGTH} characters.", "options.user")
    if options.fallback not in _FALLBACK_POLICIES:
        raise InvalidRequest("fallback is none of the known policies.", "options.fallback")
    if options.resume not in _RESUME_POLICIES:
        raise InvalidRequest("resume is none of the known policies.", "options.resume")


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


_GENERATED: dict[str | None, Callable[[Reply], router_pb2.GenerateResponse]] = {
    "openai": lambda reply: router_pb2.GenerateResponse(openai=reply_message(reply)),
    "chat": lambda reply: router_pb2.GenerateResponse(chat=chat_response(reply.body)),
    "completion": lambda reply: router_pb2.GenerateResponse(completion=completion_response(reply.body)),
}
