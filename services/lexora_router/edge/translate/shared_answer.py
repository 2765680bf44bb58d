"""What the answers of chat and completion share: decoding, finish reasons, log probabilities."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from lexora.v1 import tokens_pb2
from lexora_contract.messages import usage_message
from lexora_router.errors import UpstreamInvalid
from lexora_router.payload.event_stream import payloads
from lexora_router.payload.usage import UsageJson

T = TypeVar("T")

Index = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)] | None
Instant = Annotated[float, msgspec.Meta(ge=-(2**53), le=2**53)] | None
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]

_FINISH = {
    "stop": tokens_pb2.FINISH_REASON_STOP,
    "length": tokens_pb2.FINISH_REASON_LENGTH,
    "tool_calls": tokens_pb2.FINISH_REASON_TOOL_CALLS,
    "function_call": tokens_pb2.FINISH_REASON_TOOL_CALLS,
    "content_filter": tokens_pb2.FINISH_REASON_CONTENT_FILTER,
}


class TokenJson(msgspec.Struct, gc=False):
    """One token with its log probability, in the chat form."""

    token: str | None = None
    logprob: float | None = None
    bytes: list[Byte] | None = None
    top_logprobs: "list[TokenJson] | None" = None


class AnswerJson(msgspec.Struct, Generic[T], gc=False):
    """An answer, or an event of a stream, whose choices are of one kind."""

    id: str | None = None
    model: str | None = None
    created: Instant = None
    choices: list[T | None] | None = None
    usage: UsageJson | None = None
    system_fingerprint: str | None = None
    error: msgspec.Raw | None = None
    prompt_token_ids: Any = None
    prompt_logprobs: Any = None


def decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """Decode what an engine sent; raises UpstreamInvalid saying what is wrong with it."""
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpstreamInvalid(f"the engine's answer is not what its API promises: {error}") from None
    except RecursionError:
        raise UpstreamInvalid("the engine's answer is nested too deeply") from None


def events(decode: Callable[[bytes], AnswerJson[T]], frames: bytes) -> Iterator[AnswerJson[T]]:
    """The events that have choices. Raises UpstreamInvalid for malformed JSON and for an event that carries an error."""
    for payload in payloads(frames):
        event = decoded(decode, payload)
        if event.choices:
            yield event
        elif event.error:
            refuse_error(event.error)


def refuse_error(error: msgspec.Raw | None) -> None:
    """Raise UpstreamInvalid when an answer carries an `error`; it must never pass for an empty answer."""
    if error and (text := bytes(error)) != b"null":
        raise UpstreamInvalid(f"the engine answered with an error: {text[:500].decode(errors='replace')}")


def created(answer: AnswerJson[Any]) -> Timestamp | None:
    """When an answer was made, to the second; None where the engine does not say it."""
    return Timestamp(seconds=int(answer.created)) if answer.created else None


def finish(reason: str | None) -> tokens_pb2.FinishReason.ValueType:
    """Name of the reason, OTHER for words that this version lacks, UNSPECIFIED while there is none."""
    if not reason:
        return tokens_pb2.FINISH_REASON_UNSPECIFIED
    return _FINISH.get(reason, tokens_pb2.FINISH_REASON_OTHER)


def usage(found: UsageJson | None) -> tokens_pb2.Usage | None:
    """Usage of a whole answer; stays unset when the engine gave none."""
    return usage_message(found.counted()) if found is not None else None


def logprob(token: str | None, value: float | None, top: Iterable[tokens_pb2.TokenLogprob] = ()) -> tokens_pb2.TokenLogprob:
    """One token; NaN stands for a probability that the engine does not have, as of a prompt's first token."""
    return tokens_pb2.TokenLogprob(token=token or "", logprob=math.nan if value is None else value, top=top)


def token_logprob(item: TokenJson) -> tokens_pb2.TokenLogprob:
    """One token of the chat form, with its alternatives."""
    top = [token_logprob(other) for other in item.top_logprobs or ()]
    message = logprob(item.token, item.logprob, top)
    if item.bytes:
        message.bytes = bytes(item.bytes)
    return message
