"""The wording of chat answers: chunks, messages, tool calls, reasoning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lexora_sim.api.generation import Choice, Piece, new_hex
from lexora_sim.api.openai_face import OpenAiFace
from lexora_sim.api.tools import ToolCall
from lexora_sim.api.usage import full_usage, running_usage
from lexora_sim.text.logprobs import chat_entry, prompt_rows
from lexora_sim.text.vocabulary import EOS

encode = msgspec.json.encode


@dataclass(slots=True)
class ChatOptions:
    """What a chat answer shows besides its text."""

    logprobs: bool = False
    top: int = 0
    reasoning_tokens: int = 0
    details: bool = False


@dataclass(slots=True, kw_only=True)
class ChatFace(OpenAiFace):
    """One chat answer, streamed or whole."""

    options: ChatOptions
    call: ToolCall | None
    _called: set[int] = field(default_factory=set)
    _plain: bool = False

    def __post_init__(self) -> None:
        self._prefix = self._chunk_prefix("chat.completion.chunk")
        quiet = not self.options.logprobs and not self.options.reasoning_tokens and self.call is None
        self._plain = quiet and not self.sampling.return_token_ids and not self.sampling.continuous_usage

    def opening(self) -> Iterable[bytes]:
        """Say the role, once per choice."""
        ids = self.choices[0].prompt if self.sampling.return_token_ids else None
        tail = b',"prompt_token_ids":%b,"prompt_text":null}\n\n' % encode(ids)
        for choice in self.choices:
            usage = b""
            if self.sampling.continuous_usage:
                usage = b',"usage":%b' % encode(running_usage(choice, count=0))
            yield (
                b'%b{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]%b%b'
                % (self._prefix, choice.index, usage, tail)
            )

    def delta(self, choice: Choice, piece: Piece) -> Iterable[bytes]:
        """Say what a step added; nothing while its text is held back, unless token ids are asked for."""
        if piece.finish is None and not piece.text and not self.sampling.return_token_ids:
            return ()
        if self._plain and piece.finish is None:
            return (
                b'%b{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
                % (self._prefix, choice.index, encode(piece.text)),
            )
        if self.call is None:
            return (self._chunk(choice, piece, {self._field(choice, piece): piece.text}),)
        return self._call_chunks(choice, piece, self.call)

    def whole(self) -> dict[str, Any]:
        """Return the unary answer."""
        choices = [self._choice(choice) for choice in self.choices]
        usage = full_usage(self.choices, details=self.options.details)
        asked = self.sampling.prompt_logprobs
        return self._envelope("chat.completion", choices, usage) | {
            "prompt_logprobs": None if asked is None else prompt_rows(self.choices[0].prompt, asked),
            "prompt_token_ids": self.choices[0].prompt if self.sampling.return_token_ids else None,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }

    def _call_chunks(self, choice: Choice, piece: Piece, call: ToolCall) -> Iterable[bytes]:
        if choice.index not in self._called:
            self._called.add(choice.index)
            function = {"name": call.name, "arguments": ""}
            start = {"id": f"chatcmpl-tool-{new_hex()}", "type": "function", "index": 0, "function": function}
            yield self._chunk(choice, Piece("", [], None, None), {"tool_calls": [start]})
        if piece.text or piece.finish is None:
            more = {"tool_calls": [{"index": 0, "function": {"arguments": piece.text}}]}
            yield self._chunk(choice, piece, more)
        else:
            yield self._chunk(choice, piece, {"content": ""})

    def _chunk(self, choice: Choice, piece: Piece, delta: dict[str, Any]) -> bytes:
        sampling = self.sampling
        body: dict[str, Any] = {
            "index": choice.index,
            "delta": delta,
            "logprobs": self._logprobs(piece.ids) if piece.ids else None,
            "finish_reason": self._reason(piece.finish),
        }
        if piece.finish is not None:
            body["stop_reason"] = piece.stop
        body["token_ids"] = piece.ids if sampling.return_token_ids else None
        tail = b"]"
        if sampling.continuous_usage:
            tail += b',"usage":%b' % encode(running_usage(choice))
        if piece.finish is not None and not sampling.include_usage:
            tail += b',"system_fingerprint":%b' % encode(self.fingerprint)
        return b"%b%b%b}\n\n" % (self._prefix, encode(body), tail)

    def _choice(self, choice: Choice) -> dict[str, Any]:
        return {
            "index": choice.index,
            "message": self._message(choice),
            "logprobs": self._logprobs(choice.ids),
            "finish_reason": self._reason(choice.finish),
            "stop_reason": choice.stop,
            "token_ids": choice.ids if self.sampling.return_token_ids else None,
            "routed_experts": None,
        }

    def _message(self, choice: Choice) -> dict[str, Any]:
        reasoning, content = self._split(choice)
        message: dict[str, Any] = {"role": "assistant", "content": content}
        message |= {"refusal": None, "annotations": None, "audio": None, "function_call": None}
        if self.call is not None:
            message["content"] = "" if self.call.named else None
            function = {"name": self.call.name, "arguments": content or ""}
            message["tool_calls"] = [{"id": f"chatcmpl-tool-{new_hex()}", "type": "function", "function": function}]
        message["reasoning"] = reasoning
        return message

    def _split(self, choice: Choice) -> tuple[str | None, str | None]:
        """Return (reasoning, content); content is None while the answer is all reasoning."""
        limit = self.options.reasoning_tokens
        if not limit:
            return None, choice.text
        parts: tuple[list[str], list[str]] = ([], [])
        seen = 0
        for piece in choice.pieces:
            parts[seen >= limit].append(piece.text)
            seen += len(piece.ids)
        return "".join(parts[0]), "".join(parts[1]) or None

    def _field(self, choice: Choice, piece: Piece) -> str:
        before = len(choice.ids) - len(piece.ids)
        return "reasoning" if before < self.options.reasoning_tokens else "content"

    def _logprobs(self, ids: list[int]) -> dict[str, Any] | None:
        if not self.options.logprobs:
            return None
        return {"content": [chat_entry(token, self.options.top) for token in ids if token != EOS]}

    def _reason(self, reason: str | None) -> str | None:
        if reason == "stop" and self.call is not None and not self.call.named:
            return "tool_calls"
        return reason
