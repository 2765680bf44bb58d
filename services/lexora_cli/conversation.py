"""A conversation with a model: what has been said, and one answer at a time."""

import time
from collections.abc import Callable
from typing import Protocol

from lexora.v1 import call_pb2, chat_pb2, receipt_pb2, router_pb2
from lexora_contract.answer import hops_text
from lexora_contract.enums import word
from lexora_contract.plain import hops_of, resumed_name


class Streamer(Protocol):
    """What a conversation needs of a client."""

    def stream(self, request: router_pb2.StreamRequest, on_message: Callable[[router_pb2.StreamResponse], None]) -> None:
        """Pass each message of the answer on."""
        ...


class Show(Protocol):
    """Where an answer goes as it comes."""

    def text(self, text: str) -> None:
        """A piece of the answer."""
        ...

    def reasoning(self, text: str) -> None:
        """A piece of thought."""
        ...


class Conversation:
    """Remembers both sides. `model` may be changed at any time; empty means the router's default."""

    def __init__(self, client: Streamer, model: str = "", system: str = "", max_tokens: int | None = None) -> None:
        self._client = client
        self.model = model
        self._system = system
        self._max_tokens = max_tokens
        self.messages: list[chat_pb2.ChatMessage] = []

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.messages.clear()

    def ask(self, prompt: str, show: Show) -> str:
        """Stream the answer to `show`; returns the receipt line.

        Raises what the client raises; the question is forgotten then, unless something of the answer has been seen.
        """
        question = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, text=prompt)
        answer = _Answer(show)
        try:
            self._client.stream(self._request(question), answer.take)
        finally:
            if answer.said:
                said = chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, text="".join(answer.said))
                self.messages += (question, said)
        return answer.receipt_line()

    def _request(self, question: chat_pb2.ChatMessage) -> router_pb2.StreamRequest:
        system = [chat_pb2.ChatMessage(role=chat_pb2.ROLE_SYSTEM, text=self._system)] if self._system else []
        chat = chat_pb2.ChatRequest(model=self.model, messages=[*system, *self.messages, question])
        if self._max_tokens is not None:
            chat.sampling.max_tokens = self._max_tokens
        return router_pb2.StreamRequest(call=call_pb2.Call(chat=chat))


class _Answer:
    def __init__(self, show: Show) -> None:
        self._show = show
        self._asked = time.monotonic()
        self._first = 0.0
        self._receipt = receipt_pb2.Receipt()
        self.said: list[str] = []

    def take(self, message: router_pb2.StreamResponse) -> None:
        if not message.HasField("delta"):
            self._receipt = message.completed.receipt if message.HasField("completed") else message.started.receipt
        for piece in message.delta.chat.choices:
            if piece.text or piece.reasoning:
                self._first = self._first or time.monotonic()
            if piece.reasoning:
                self._show.reasoning(piece.reasoning)
            if piece.text or piece.refusal:
                self._show.text(piece.text or piece.refusal)
                self.said.append(piece.text or piece.refusal)

    def receipt_line(self) -> str:
        receipt, ended = self._receipt, time.monotonic()
        parts = [receipt.backend or "unknown backend"]
        if receipt.HasField("auto"):
            auto = receipt.auto
            task, by = auto.task_type or "a task of unknown kind", word(receipt_pb2.Classifier, auto.classifier)
            parts.append(f"{auto.model} for {task}, by {by}")
        unusual = (("fallback", hops_text(hops_of(receipt.hops))), ("resumed by", resumed_name(receipt.resume_method)))
        parts += [f"{name} {what}" for name, what in unusual if what]
        if self._first:
            parts.append(f"TTFT {(self._first - self._asked) * 1000:.0f} ms")
        if receipt.HasField("usage"):
            tokens = receipt.usage.output_tokens
            parts.append(f"{receipt.usage.input_tokens} tokens in, {tokens} out")
            # The first token marks the start of the clock, so it is not counted.
            if self._first and tokens > 1 and ended > self._first:
                parts.append(f"{(tokens - 1) / (ended - self._first):.0f} tokens/s")
        return " · ".join(parts)
