"""Answers of /v1/chat/completions, whole and in pieces, to ChatResponse and ChatChunk."""

from typing import Any

import msgspec

from lexora.v1 import chat_pb2, router_pb2, tokens_pb2
from lexora_contract.enums import value
from lexora_router.edge.translate.shared_answer import (
    AnswerJson,
    Index,
    TokenJson,
    created,
    decoded,
    events,
    finish,
    refuse_error,
    token_logprob,
    usage,
)
from lexora_router.edge.translate.vllm_tokens import prompt_tokens, stop_match, token_ids
from lexora_router.payload.lenient_json import lenient

_ROLES = {
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_DEVELOPER,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
}


class _Image(msgspec.Struct, gc=False):
    url: str | None = None
    detail: str | None = None


class _Part(msgspec.Struct, gc=False):
    text: str | None = None
    image_url: _Image | str | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct, gc=False):
    id: str | None = None
    index: Index = None
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    role: str | None = None
    content: str | list[_Part | None] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[_Call | None] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[TokenJson] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: Index = None
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    stop_reason: Any = None
    token_ids: Any = None


_decode = lenient(msgspec.json.Decoder(AnswerJson[_Choice]).decode)


def chat_response(body: bytes) -> chat_pb2.ChatResponse:
    """Read a whole answer. A null content stays unset. Raises UpstreamInvalid when it is no answer of this API."""
    answer = decoded(_decode, body)
    refuse_error(answer.error)
    return chat_pb2.ChatResponse(
        id=answer.id or "",
        model=answer.model or "",
        create_time=created(answer),
        choices=[_choice(i, choice) for i, choice in enumerate(answer.choices or ()) if choice],
        usage=usage(answer.usage),
        system_fingerprint=answer.system_fingerprint or "",
        prompt_token_ids=token_ids(answer.prompt_token_ids),
        prompt_logprobs=prompt_tokens(answer.prompt_logprobs),
    )


def chat_chunks(frames: bytes) -> list[router_pb2.StreamResponse]:
    """Read whole events of a stream: one message per event that has choices, so none for usage alone.

    Raises UpstreamInvalid for malformed JSON and for an event that carries an error.
    """
    return [_streamed(event) for event in events(_decode, frames)]


def _choice(place: int, choice: _Choice) -> chat_pb2.ChatChoice:
    return chat_pb2.ChatChoice(
        index=place if choice.index is None else choice.index,
        message=_message(choice.message or _Message()),
        finish_reason=finish(choice.finish_reason),
        finish_reason_raw=choice.finish_reason or "",
        logprobs=_logprobs(choice),
        matched_stop=stop_match(choice.stop_reason),
        token_ids=token_ids(choice.token_ids),
    )


def _message(found: _Message) -> chat_pb2.ChatMessage:
    content = found.content
    return chat_pb2.ChatMessage(
        role=_ROLES.get(found.role or "", chat_pb2.ROLE_UNSPECIFIED),
        text=content if isinstance(content, str) else None,
        parts=[part for item in content if item and (part := _part(item))] if isinstance(content, list) else None,
        name=found.name or "",
        tool_calls=_tool_calls(found),
        tool_call_id=found.tool_call_id or "",
        reasoning=found.reasoning_content if found.reasoning is None else found.reasoning,
        refusal=found.refusal,
    )


def _part(part: _Part) -> chat_pb2.ContentPart | None:
    if part.text is not None:
        return chat_pb2.ContentPart(text=part.text)
    image = _Image(part.image_url) if isinstance(part.image_url, str) else part.image_url
    if image is None:
        return None
    return chat_pb2.ContentPart(
        image=chat_pb2.ImagePart(url=image.url or "", detail=value(chat_pb2.ImageDetail, image.detail or ""))
    )


def _streamed(event: AnswerJson[_Choice]) -> router_pb2.StreamResponse:
    """Filled in place: a message that is put into another one is copied by way of its bytes."""
    response = router_pb2.StreamResponse()
    chunk = response.delta.chat
    chunk.SetInParent()
    chunk.id = event.id or ""
    chunk.model = event.model or ""
    if event.created:
        chunk.create_time.seconds = int(event.created)
    for place, choice in enumerate(event.choices or ()):
        if choice:
            _add(chunk, place, choice)
    return response


def _add(chunk: chat_pb2.ChatChunk, place: int, choice: _Choice) -> None:
    found = choice.delta or _EMPTY
    chunk.choices.add(
        index=place if choice.index is None else choice.index,
        role=_ROLES.get(found.role or "", chat_pb2.ROLE_UNSPECIFIED),
        text=_text(found.content),
        reasoning=found.reasoning or found.reasoning_content or "",
        tool_calls=_tool_calls(found) if found.tool_calls else None,
        refusal=found.refusal or "",
        finish_reason=finish(choice.finish_reason),
        finish_reason_raw=choice.finish_reason or "",
        logprobs=_logprobs(choice) if choice.logprobs else None,
        matched_stop=None if choice.stop_reason is None else stop_match(choice.stop_reason),
        token_ids=None if choice.token_ids is None else token_ids(choice.token_ids),
    )


def _text(content: str | list[_Part | None] | None) -> str:
    if isinstance(content, list):
        return "".join(part.text for part in content if part and part.text)
    return content or ""


def _tool_calls(found: _Message) -> list[chat_pb2.ToolCall]:
    return [
        chat_pb2.ToolCall(
            id=call.id or "",
            name=(call.function and call.function.name) or "",
            arguments_json=_arguments(call.function),
            index=place if call.index is None else call.index,
        )
        for place, call in enumerate(found.tool_calls or ())
        if call
    ]


def _arguments(function: _Function | None) -> str:
    if function is None or function.arguments is None:
        return ""
    if isinstance(function.arguments, str):
        return function.arguments
    # Some engines send the arguments as an object instead of a string.
    return msgspec.json.encode(function.arguments).decode()


def _logprobs(choice: _Choice) -> list[tokens_pb2.TokenLogprob]:
    items = choice.logprobs.content if choice.logprobs else None
    return [token_logprob(item) for item in items or ()]


_EMPTY = _Message()
