"""The same client for asyncio."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from lexora.client._answers import Answer, Collected
from lexora.client._channel import carrying
from lexora.client._errors import error_of, wait_before
from lexora.client._requests import Messages, Options, call_options, chat_call
from lexora.client._settings import Settings
from lexora.v1.admin_pb2_grpc import AdminServiceStub
from lexora.v1.embed_pb2 import EmbedRequest, EmbedResponse, TextInputs
from lexora.v1.models_pb2 import ListModelsRequest, Model
from lexora.v1.router_pb2 import GenerateRequest, StreamRequest, StreamResponse
from lexora.v1.router_pb2_grpc import RouterServiceStub

T = TypeVar("T")


class AsyncClient:
    """One channel to a router, which all tasks of an event loop may share. Every method raises LexoraError.

    To be made inside the event loop. Settings may be given one by one:
    `AsyncClient("router:50051", timeout=30, user="team-a")`.
    """

    def __init__(self, target: str | Settings = Settings.target, **given: Any) -> None:
        self.settings = target if isinstance(target, Settings) else Settings(target, **given)
        where, options = self.settings.target, self.settings.channel_options()
        if self.settings.credentials is None:
            self._channel = grpc.aio.insecure_channel(where, options)
        else:
            self._channel = grpc.aio.secure_channel(where, self.settings.credentials, options)
        channel = carrying(self._channel, self.settings.metadata)
        self.router, self.admin = RouterServiceStub(channel), AdminServiceStub(channel)

    @classmethod
    def from_env(cls) -> Self:
        """A client as the environment says; see Settings.from_env."""
        return cls(Settings.from_env())

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def chat(
        self,
        model: str,
        messages: Messages,
        *,
        options: Options = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> Answer:
        """One answer. `fields` are those of SamplingParams and ChatRequest: `max_tokens=100, tools=[...]`."""
        request = GenerateRequest(call=chat_call(model, messages, options, self.settings, fields))
        response = await self._ask(self.router.Generate, request, timeout)
        return Answer(response.chat, response.receipt)

    async def stream(
        self,
        model: str,
        messages: Messages,
        *,
        options: Options = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> "AsyncStream":
        """The same as it is made: iterate over its texts; `async with` ends the call when the block is left early."""
        request = StreamRequest(call=chat_call(model, messages, options, self.settings, fields))

        async def begin(left: float | None) -> tuple[Any, StreamResponse | None]:
            call: Any = self.router.Stream(request, timeout=left)
            first = await _answered(call, call.read())  # what is refused is refused here, where it can be repeated
            return call, None if first is grpc.aio.EOF else first

        call, first = await self._retried(begin, timeout)
        return AsyncStream(call, first)

    async def embed(
        self, model: str, texts: Sequence[str], *, options: Options = None, timeout: float | None = None, **fields: Any
    ) -> EmbedResponse:
        """Vectors for texts. `fields` are those of EmbedRequest."""
        request = EmbedRequest(
            options=call_options(options, self.settings), model=model, texts=TextInputs(values=texts), **fields
        )
        response: EmbedResponse = await self._ask(self.router.Embed, request, timeout)
        return response

    async def models(self, *, timeout: float | None = None) -> list[Model]:
        """The models that can be asked."""
        return list((await self._ask(self.router.ListModels, ListModelsRequest(), timeout)).models)

    async def _ask(self, rpc: Any, request: Any, timeout: float | None) -> Any:
        async def ask(left: float | None) -> Any:
            call = rpc(request, timeout=left)
            return await _answered(call, call)

        return await self._retried(ask, timeout)

    async def _retried(self, attempt: Callable[[float | None], Awaitable[T]], timeout: float | None) -> T:
        seconds = self.settings.timeout if timeout is None else timeout
        end, left = None if seconds is None else time.monotonic() + seconds, self.settings.retries
        while True:
            remaining = None if end is None else max(end - time.monotonic(), 0.0)
            try:
                return await attempt(remaining)
            except grpc.RpcError as failure:
                error = error_of(failure)
                wait = wait_before(error, left, None if end is None else end - time.monotonic())
                if wait is None:
                    raise error from failure
            left -= 1
            await asyncio.sleep(wait)


async def _answered(call: Any, answer: Awaitable[T]) -> T:
    """Await an answer. For a call whose channel was closed grpc raises the same as for a task that is cancelled."""
    try:
        return await answer
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        code, details = await call.code(), await call.details()
        raise grpc.aio.AioRpcError(code, await call.initial_metadata(), await call.trailing_metadata(), details) from None


class AsyncStream(Collected):
    """A streamed answer: iterating gives its texts; `receipt`, `text` and `tool_calls` are whole at the end."""

    def __init__(self, call: Any, first: StreamResponse | None) -> None:
        super().__init__()
        self._call = call
        self._first = first

    async def __aiter__(self) -> AsyncIterator[str]:
        async for message in self.messages():
            if text := self.note(message):
                yield text

    async def messages(self) -> AsyncIterator[StreamResponse]:
        """The messages of the contract as they come. Raises LexoraError."""
        first, self._first = self._first, None
        try:
            if first is not None:
                yield first
            while (message := await _answered(self._call, self._call.read())) is not grpc.aio.EOF:
                yield message
        except grpc.RpcError as failure:
            raise error_of(failure) from failure
        finally:
            self.cancel()  # a loop that is left early ends the call; one that has ended does not mind

    def cancel(self) -> None:
        """End the call; its engine stops."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
