"""The wording of completions: text chunks, legacy logprobs, echo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lexora_sim.api.generation import Choice, Piece
from lexora_sim.api.openai_face import OpenAiFace
from lexora_sim.api.usage import full_usage, running_usage
from lexora_sim.text.logprobs import alternatives, logprob, prompt_rows, token_text
from lexora_sim.text.vocabulary import EOS, VOCABULARY

encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class CompletionOptions:
    """`logprobs` is the number of alternatives, None for none at all."""

    logprobs: int | None
    echo: bool
    details: bool


@dataclass(slots=True, kw_only=True)
class CompletionFace(OpenAiFace):
    """One completion answer, streamed or whole."""

    options: CompletionOptions
    _begun: set[int] = field(default_factory=set)
    _offsets: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._prefix = self._chunk_prefix("text_completion")

    def opening(self) -> Iterable[bytes]:
        """Say nothing: completions start with their text."""
        return ()

    def delta(self, choice: Choice, piece: Piece) -> Iterable[bytes]:
        """Say what a step added; nothing while its text is held back, unless token ids are asked for."""
        first = choice.index not in self._begun
        echo = first and self.options.echo
        if piece.finish is None and not piece.text and not self.sampling.return_token_ids and not echo:
            return
        self._begun.add(choice.index)
        text, ids = piece.text, piece.ids
        if echo:
            text, ids = VOCABULARY.decode(choice.prompt) + text, choice.prompt + ids
        body = {
            "index": choice.index,
            "text": text,
            "logprobs": self._logprobs(ids, self._offsets.get(choice.index, 0), len(choice.prompt) if echo else 0),
            "finish_reason": piece.finish,
            "stop_reason": piece.stop,
            "prompt_token_ids": choice.prompt if first and self.sampling.return_token_ids else None,
            "token_ids": piece.ids if self.sampling.return_token_ids else None,
        }
        self._offsets[choice.index] = self._offsets.get(choice.index, 0) + len(text)
        tail = b"]"
        if self.sampling.continuous_usage:
            tail += b',"usage":%b' % encode(running_usage(choice))
        if piece.finish is not None and not self.sampling.include_usage:
            tail += b',"system_fingerprint":%b' % encode(self.fingerprint)
        yield b"%b%b%b}\n\n" % (self._prefix, encode(body), tail)

    def whole(self) -> dict[str, Any]:
        """Return the unary answer."""
        choices = [self._choice(choice) for choice in self.choices]
        usage = full_usage(self.choices, details=self.options.details)
        return self._envelope("text_completion", choices, usage) | {
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }

    def _choice(self, choice: Choice) -> dict[str, Any]:
        text, ids, skipped = choice.text, choice.ids, 0
        if self.options.echo:
            text, ids, skipped = VOCABULARY.decode(choice.prompt) + text, choice.prompt + ids, len(choice.prompt)
        return {
            "index": choice.index,
            "text": text,
            "logprobs": self._logprobs(ids, 0, skipped),
            "finish_reason": choice.finish,
            "stop_reason": choice.stop,
            "token_ids": choice.ids if self.sampling.return_token_ids else None,
            "prompt_logprobs": self._prompt_logprobs(choice.prompt),
            "prompt_token_ids": choice.prompt if self.sampling.return_token_ids else None,
            "routed_experts": None,
        }

    def _logprobs(self, ids: list[int], offset: int, prompt: int) -> dict[str, Any] | None:
        """Return the legacy form; the first token of an echoed prompt has no probability."""
        count = self.options.logprobs
        if count is None:
            return None
        shown = [token for token in ids if token != EOS]
        offsets, values, tokens, tops = [], [], [], []
        for number, token in enumerate(shown):
            text = token_text(token)
            unknown = number == 0 and prompt > 0
            offsets.append(offset)
            tokens.append(text)
            values.append(None if unknown else logprob(token))
            tops.append(None if unknown else {token_text(t): value for t, value in alternatives(token, max(count, 1))})
            offset += len(text)
        return {"text_offset": offsets, "token_logprobs": values, "tokens": tokens, "top_logprobs": tops}

    def _prompt_logprobs(self, prompt: list[int]) -> list[Any] | None:
        count = self.sampling.prompt_logprobs
        if count is None and self.options.echo:
            count = self.options.logprobs
        return None if count is None else prompt_rows(prompt, count)
