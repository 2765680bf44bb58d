"""POST /generate and POST /chat: the short forms, over the typed calls of the contract."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import TYPE_CHECKING

import msgspec

from lexora.v1.call_pb2 import Call
from lexora.v1.chat_pb2 import ROLE_USER, ChatMessage, ChatRequest
from lexora.v1.completion_pb2 import CompletionRequest
from lexora.v1.explain_pb2 import ExplainRequest
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.router_pb2 import GenerateRequest, GenerateResponse, StreamRequest, StreamResponse
from lexora.v1.sampling_pb2 import SamplingParams
from lexora.v1.tokens_pb2 import TokenIds
from lexora_contract.messages import options_message, receipt_of
from lexora_contract.port import Flow, Gate
from lexora_contract.rpcs import GENERATE
from lexora_gateway.api_route import ApiRoute
from lexora_gateway.call_headers import call_options
from lexora_gateway.json_body import JsonFields, is_integer, parse_object
from lexora_gateway.openai.messages import chat_messages
from lexora_gateway.openai.sampling import take_sampling
from lexora_gateway.sse import data_event

if TYPE_CHECKING:
    from lexora_contract.port import RouterPort
    from lexora_gateway.client_request import ClientRequest
    from lexora_gateway.request import Limits
    from lexora_gateway.response import Answer

MAX_TOKENS = 1000
TEMPERATURE = 0.7


class ShortForm(ApiRoute):
    """A short form: flat JSON in, one field out, whole or as events that end with `[DONE]`."""

    field: str

    def __init__(self, router: RouterPort, limits: Limits, default_model: str | None) -> None:
        super().__init__(router, limits)
        self._default_model = default_model or ""

    async def serve(self, received: ClientRequest, answer: Answer) -> None:
        """Call the router in typed form, whole or streamed."""
        fields, options, stream = _read(received)
        call = self.call(options, fields)
        received.body = b""  # the call has it
        if stream:
            answer.streams()
            events = _Events(answer, self)
            # `send` waits for the client, so the call's own flow has nothing to do.
            received.context.flow.attach(events.gate)
            received.context.flow = Flow()
            await self._router.stream(StreamRequest(call=call), received.context, events.send)
            events.end()
        else:
            response = await self._router.unary(GENERATE, GenerateRequest(call=call), received.context)
            answer.json(msgspec.json.encode({self.field: self.text_of(response)}), receipt_of(response.receipt))

    def explained(self, received: ClientRequest) -> ExplainRequest:
        """The same call, to be explained."""
        fields, options, _ = _read(received)
        call = self.call(options, fields)
        received.body = b""
        return ExplainRequest(call=call)

    @abstractmethod
    def call(self, options: CallOptions, fields: JsonFields) -> Call:
        """The call in typed form. Raises Refused (400)."""

    @abstractmethod
    def text_of(self, response: GenerateResponse) -> str | None:
        """The answer's text."""

    @abstractmethod
    def delta_of(self, message: StreamResponse) -> str:
        """The text of one piece; empty when it has none."""

    def model(self, fields: JsonFields) -> str:
        """The model asked for, else the default one; empty leaves the choice to the router."""
        return fields.text("model") or self._default_model


class Generate(ShortForm):
    """`{"prompt": ...}` -> `{"text": ...}`."""

    field = "text"

    def call(self, options: CallOptions, fields: JsonFields) -> Call:
        """A text completion."""
        return Call(options=options, completion=self._completion(fields))

    def text_of(self, response: GenerateResponse) -> str | None:
        """The first choice's text."""
        choices = response.completion.choices
        return choices[0].text if choices else None

    def delta_of(self, message: StreamResponse) -> str:
        """The first choice's new text."""
        return "".join(choice.text for choice in message.delta.completion.choices if choice.index == 0)

    def _completion(self, fields: JsonFields) -> CompletionRequest:
        request = CompletionRequest(model=self.model(fields), sampling=_sampling(fields))
        prompt = fields.take("prompt")
        if isinstance(prompt, str):
            request.text = prompt
        elif isinstance(prompt, list) and prompt and all(is_integer(token, 32) for token in prompt):
            request.token_ids.CopyFrom(TokenIds(ids=prompt))
        else:
            fields.refuse("prompt", "a string or a list of token ids")
        request.extra_json = _extra(fields)
        return request


class Chat(ShortForm):
    """`{"messages": [...]}`, or one user message in `prompt` or `message` -> `{"response": ...}`."""

    field = "response"

    def call(self, options: CallOptions, fields: JsonFields) -> Call:
        """A chat."""
        return Call(options=options, chat=self._chat(fields))

    def text_of(self, response: GenerateResponse) -> str | None:
        """The first choice's text; null stays null."""
        choices = response.chat.choices
        return choices[0].message.text if choices and choices[0].message.HasField("text") else None

    def delta_of(self, message: StreamResponse) -> str:
        """The first choice's new text."""
        return "".join(choice.text for choice in message.delta.chat.choices if choice.index == 0)

    def _chat(self, fields: JsonFields) -> ChatRequest:
        request = ChatRequest(model=self.model(fields), sampling=_sampling(fields))
        request.messages.extend(_messages(fields))
        request.extra_json = _extra(fields)
        return request


class _Events:
    """Passes typed pieces on as events; the head goes out with the first of them."""

    __slots__ = ("_answer", "_form", "_has_head", "gate")

    def __init__(self, answer: Answer, form: ShortForm) -> None:
        self._answer = answer
        self._form = form
        self._has_head = False
        self.gate = Gate()

    async def send(self, message: StreamResponse) -> None:
        self._begin(message)
        delta = self._form.delta_of(message)
        if delta:
            self._answer.frames(data_event({self._form.field: delta}))
            await self.gate.passed()

    def end(self) -> None:
        self._begin(StreamResponse())
        self._answer.frames(b"data: [DONE]\n\n")
        self._answer.end()

    def _begin(self, message: StreamResponse) -> None:
        if not self._has_head:
            self._has_head = True
            self._answer.accepted(receipt_of(message.started.receipt), streams=True)
            self._answer.head(None)


def _read(received: ClientRequest) -> tuple[JsonFields, CallOptions, bool]:
    """The fields of a body, the call's options, and whether it is to be streamed."""
    fields = parse_object(received.body)
    options = options_message(call_options(received.headers, received.request_id, fields.text("user") or ""))
    stream = bool(fields.truth("stream"))
    if stream:
        # The terminal events are this form's own; usage has no place among them.
        fields.take("stream_options")
    return fields, options, stream


def _sampling(fields: JsonFields) -> SamplingParams:
    return take_sampling(fields, MAX_TOKENS, TEMPERATURE)


def _messages(fields: JsonFields) -> list[ChatMessage]:
    items = fields.items("messages", "a list of messages")
    prompt, message = fields.text("prompt"), fields.text("message")
    if items:
        return chat_messages(items, "messages")
    text = prompt if prompt is not None else message
    if text is None:
        fields.refuse("messages", "a list of messages (or send one text as prompt or message)")
    return [ChatMessage(role=ROLE_USER, text=text)]


def _extra(fields: JsonFields) -> str:
    rest = fields.rest()
    return json.dumps(rest, ensure_ascii=False, separators=(",", ":")) if rest else ""
