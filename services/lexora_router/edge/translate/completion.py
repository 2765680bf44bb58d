"""CompletionRequest to the body of /v1/completions, and its answers back."""

from typing import Any

import msgspec

from lexora.v1 import completion_pb2, router_pb2, tokens_pb2
from lexora_router.edge.translate.shared import encode, new_body, put_model, put_sampling
from lexora_router.edge.translate.shared_answer import (
    AnswerJson,
    Index,
    TokenJson,
    created,
    decoded,
    events,
    finish,
    logprob,
    refuse_error,
    token_logprob,
    usage,
)
from lexora_router.edge.translate.vllm_tokens import prompt_tokens, stop_match, token_ids
from lexora_router.errors import InvalidRequest
from lexora_router.payload.fields import Fields
from lexora_router.payload.lenient_json import lenient


def completion_body(
    request: completion_pb2.CompletionRequest, *, stream: bool, default_model: str | None
) -> tuple[bytes, Fields]:
    """OpenAI's JSON of this completion, and what it says.

    Unset fields are left out, fields of `extra_json` come first, typed ones win over them. Raises InvalidRequest, whose
    `param` names the field: "model", "prompt" or a path such as "completion.extra_json".
    """
    body = new_body(request.extra_json, "completion.extra_json")
    put_model(body, request.model, default_model)
    match request.WhichOneof("prompt"):
        case "text":
            body["prompt"] = request.text
        case "token_ids":
            body["prompt"] = list(request.token_ids.ids)
        case _:
            raise InvalidRequest("prompt is missing: set text or token_ids", "prompt")
    put_sampling(body, request.sampling, "completion.sampling")
    if request.echo:
        body["echo"] = True
    if request.HasField("logprobs"):
        body["logprobs"] = request.logprobs
    if request.suffix:
        body["suffix"] = request.suffix
    return encode(body, stream=stream)


class _Logprobs(msgspec.Struct, gc=False):
    tokens: list[str | None] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None
    content: list[TokenJson] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: Index = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    stop_reason: Any = None
    token_ids: Any = None
    prompt_token_ids: Any = None
    prompt_logprobs: Any = None


_decode = lenient(msgspec.json.Decoder(AnswerJson[_Choice]).decode)


def completion_response(body: bytes) -> completion_pb2.CompletionResponse:
    """Read a whole answer; raises UpstreamInvalid when it is no answer of this API."""
    answer = decoded(_decode, body)
    refuse_error(answer.error)
    return completion_pb2.CompletionResponse(
        id=answer.id or "",
        model=answer.model or "",
        create_time=created(answer),
        choices=_choices(answer),
        usage=usage(answer.usage),
        system_fingerprint=answer.system_fingerprint or "",
    )


def completion_chunks(frames: bytes) -> list[router_pb2.StreamResponse]:
    """Read whole events of a stream: one message per event that has choices, so none for usage alone.

    Raises UpstreamInvalid for malformed JSON and for an event that carries an error.
    """
    return [_streamed(event) for event in events(_decode, frames)]


def _streamed(event: AnswerJson[_Choice]) -> router_pb2.StreamResponse:
    response = router_pb2.StreamResponse()
    chunk = response.delta.completion
    chunk.SetInParent()
    chunk.id = event.id or ""
    chunk.model = event.model or ""
    if event.created:
        chunk.create_time.seconds = int(event.created)
    chunk.choices.extend(_choices(event))
    return response


def _choices(answer: AnswerJson[_Choice]) -> list[completion_pb2.CompletionChoice]:
    return [
        completion_pb2.CompletionChoice(
            index=place if choice.index is None else choice.index,
            text=choice.text or "",
            finish_reason=finish(choice.finish_reason),
            finish_reason_raw=choice.finish_reason or "",
            logprobs=_logprobs(choice.logprobs) if choice.logprobs else None,
            matched_stop=stop_match(choice.stop_reason),
            token_ids=token_ids(choice.token_ids),
            prompt_token_ids=token_ids(choice.prompt_token_ids),
            prompt_logprobs=prompt_tokens(choice.prompt_logprobs),
        )
        for place, choice in enumerate(answer.choices or ())
        if choice
    ]


def _logprobs(found: _Logprobs) -> list[tokens_pb2.TokenLogprob]:
    if found.content:  # llama.cpp answers completions in the chat form
        return [token_logprob(item) for item in found.content]
    values = found.token_logprobs or ()
    tops = found.top_logprobs or ()
    return [
        logprob(
            token,
            values[place] if place < len(values) else None,
            [logprob(*item) for item in ((tops[place] if place < len(tops) else None) or {}).items()],
        )
        for place, token in enumerate(found.tokens or ())
    ]
