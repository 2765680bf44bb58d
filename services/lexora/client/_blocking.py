"""The blocking client."""

import time
from collections.abc import Callable, Iterator, Sequence
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


class Client:
    """One channel to a router, which all threads may share. Every method raises LexoraError.

    Settings may be given one by one: `Client("router:50051", timeout=30, user="team-a")`.
    """

    def __init__(self, target: str | Settings = Settings.target, **given: Any) -> None:
        self.settings = target if isinstance(target, Settings) else Settings(target, **given)
        where, options = self.settings.target, self.settings.channel_options()
        if self.settings.credentials is None:
            self._channel = grpc.insecure_channel(where, options)
        else:
            self._channel = grpc.secure_channel(where, self.settings.credentials, options)
        channel = carrying(self._channel, self.settings.metadata)
        self.router, self.admin = RouterServiceStub(channel), AdminServiceStub(channel)

    @classmethod
    def from_env(cls) -> Self:
        """A client as the environment says; see Settings.from_env."""
        return cls(Settings.from_env())

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def chat(
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
        response = self._retried(lambda left: self.router.Generate(request, timeout=left), timeout)
        return Answer(response.chat, response.receipt)

    def stream(
        self,
        model: str,
        messages: Messages,
        *,
        options: Options = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> "Stream":
        """The same as it is made: iterate over its texts; `with` ends the call when the block is left early."""
        request = StreamRequest(call=chat_call(model, messages, options, self.settings, fields))

        def begin(left: float | None) -> tuple[Any, StreamResponse | None]:
            call: Any = self.router.Stream(request, timeout=left)
            return call, next(call, None)  # what is refused is refused here, where it can be repeated

        call, first = self._retried(begin, timeout)
        return Stream(call, first)

    def embed(
        self, model: str, texts: Sequence[str], *, options: Options = None, timeout: float | None = None, **fields: Any
    ) -> EmbedResponse:
        """Vectors for texts. `fields` are those of EmbedRequest."""
        request = EmbedRequest(
            options=call_options(options, self.settings), model=model, texts=TextInputs(values=texts), **fields
        )
        return self._retried(lambda left: self.router.Embed(request, timeout=left), timeout)

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """The models that can be asked."""
        return list(self._retried(lambda left: self.router.ListModels(ListModelsRequest(), timeout=left), timeout).models)

    def _retried(self, attempt: Callable[[float | None], T], timeout: float | None) -> T:
        seconds = self.settings.timeout if timeout is None else timeout
        end, left = None if seconds is None else time.monotonic() + seconds, self.settings.retries
        while True:
            remaining = None if end is None else max(end - time.monotonic(), 0.0)
            try:
                return attempt(remaining)
            except grpc.RpcError as failure:
                error = error_of(failure)
                wait = wait_before(error, left, None if end is None else end - time.monotonic())
                if wait is None:
                    raise error from failure
            left -= 1
            time.sleep(wait)


class Stream(Collected):
    """A streamed answer: iterating gives its texts; `receipt`, `text` and `tool_calls` are whole at the end."""

    def __init__(self, call: Any, first: StreamResponse | None) -> None:
        super().__init__()
        self._call = call
        self._first = first

    def __iter__(self) -> Iterator[str]:
        for message in self.messages():
            if text := self.note(message):
                yield text

    def messages(self) -> Iterator[StreamResponse]:
        """The messages of the contract as they come. Raises LexoraError."""
        first, self._first = self._first, None
        try:
            if first is not None:
                yield first
            yield from self._call
        except grpc.RpcError as failure:
            raise error_of(failure) from failure
        finally:
            self.cancel()  # a loop that is left early ends the call; one that has ended does not mind

    def cancel(self) -> None:
        """End the call; its engine stops."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cancel()
