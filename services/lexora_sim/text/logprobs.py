"""Made-up but repeatable log probabilities."""

from __future__ import annotations

from lexora_sim.text.language import mix
from lexora_sim.text.vocabulary import VOCABULARY


def token_text(token: int) -> str:
    """Return the token's text; U+FFFD stands for bytes that are no whole character."""
    return VOCABULARY.data[token].decode("utf-8", "replace")


def logprob(token: int, rank: int = 0) -> float:
    """Return a value between -3 and 0 for the chosen token, lower for each further rank."""
    return -(mix(token + rank * 7919) % 3_000_000 + 1) / 1_000_000 - 3.0 * rank


def alternatives(token: int, count: int) -> list[tuple[int, float]]:
    """Return `count` (token, logprob) pairs, the chosen token first."""
    pairs = [(token, logprob(token))]
    words = VOCABULARY.words
    for rank in range(1, count):
        pairs.append((words[mix(token * 31 + rank) % len(words)], logprob(token, rank)))
    return pairs[:count]


def chat_entry(token: int, top: int) -> dict[str, object]:
    """Return one item of a chat choice's `logprobs.content`."""
    best = [_part(other, value) for other, value in alternatives(token, top)]
    return {**_part(token, logprob(token)), "top_logprobs": best}


def _part(token: int, value: float) -> dict[str, object]:
    return {"token": token_text(token), "logprob": value, "bytes": list(VOCABULARY.data[token])}


def prompt_rows(prompt: list[int], count: int) -> list[dict[str, object] | None]:
    """Return `prompt_logprobs`: null for the first token, then readings by token id, the token itself first."""
    return [None, *(_row(token, max(count, 1)) for token in prompt[1:])]


def _row(token: int, count: int) -> dict[str, object]:
    pairs = enumerate(alternatives(token, count), 1)
    return {str(other): {"logprob": value, "rank": rank, "decoded_token": token_text(other)} for rank, (other, value) in pairs}
