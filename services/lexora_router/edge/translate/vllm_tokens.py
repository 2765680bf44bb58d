"""What vLLM says of an answer's tokens beyond OpenAI's form: what it stopped at, token ids, the prompt's log probabilities.

https://docs.vllm.ai/en/latest/api/vllm/entrypoints/openai/protocol.html. Nothing here makes an answer unreadable: what has
another shape, of another engine, is left out.
"""

from typing import Any

from lexora.v1 import tokens_pb2
from lexora_router.edge.translate.shared_answer import logprob

_MAX_ID = 2**31 - 1


def stop_match(reason: Any) -> tokens_pb2.StopMatch | None:
    """`stop_reason`: the text or the token id that ended the answer."""
    if isinstance(reason, str):
        return tokens_pb2.StopMatch(text=reason)
    return tokens_pb2.StopMatch(token_id=reason) if _is_id(reason) else None


def token_ids(found: Any) -> list[int] | None:
    """A list of token ids."""
    return found if isinstance(found, list) and all(map(_is_id, found)) else None


def prompt_tokens(found: Any) -> list[tokens_pb2.PromptToken]:
    """`prompt_logprobs`: of each token null, or its readings by token id."""
    if not isinstance(found, list):
        return []
    return [tokens_pb2.PromptToken(readings=_readings(each)) for each in found]


def _readings(found: Any) -> list[tokens_pb2.TokenLogprob]:
    if not isinstance(found, dict):
        return []
    return [_reading(number, each) for number, each in found.items() if isinstance(each, dict)]


def _reading(number: str, found: dict[str, Any]) -> tokens_pb2.TokenLogprob:
    text, value, rank = (found.get(name) for name in ("decoded_token", "logprob", "rank"))
    message = logprob(text if isinstance(text, str) else "", float(value) if isinstance(value, int | float) else None)
    if number.isascii() and number.isdecimal() and _is_id(int(number)):
        message.token_id = int(number)
    if isinstance(rank, int) and _is_id(rank):
        message.rank = rank
    return message


def _is_id(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= _MAX_ID
