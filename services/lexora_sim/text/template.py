"""The chat template: messages to prompt ids, in the ChatML manner."""

from __future__ import annotations

from typing import Any

import msgspec

from lexora_sim.text.vocabulary import AUDIO, EOS, IM_START, IMAGE, VOCABULARY

_IMAGE_TOKENS = 16


def chat_ids(
    messages: list[Any],
    *,
    tools: list[Any] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> list[int]:
    """Return the prompt ids of a conversation.

    With `continue_final_message` the last message stays open, so that the answer goes on from its text.
    """
    encode = VOCABULARY.encode
    ids: list[int] = []
    if tools:
        ids += [IM_START, *encode("system\ntools " + _json(tools)), EOS, *encode("\n")]
    for message in messages:
        ids += [IM_START, *encode(f"{message.get('role', 'user')}\n"), *_content_ids(message.get("content"))]
        if message.get("tool_calls"):
            ids += encode(_json(message["tool_calls"]))
        ids += [EOS, *encode("\n")]
    if continue_final_message:
        return ids[: -1 - len(encode("\n"))]
    if add_generation_prompt:
        ids += [IM_START, *encode("assistant\n")]
    return ids


def _content_ids(content: Any) -> list[int]:
    if content is None:
        return []
    if isinstance(content, str):
        return VOCABULARY.encode(content)
    ids: list[int] = []
    for part in content if isinstance(content, list) else [content]:
        ids += _part_ids(part)
    return ids


def _part_ids(part: Any) -> list[int]:
    if isinstance(part, str):
        return VOCABULARY.encode(part)
    if not isinstance(part, dict):
        return []
    kind = str(part.get("type", "text"))
    if "image" in kind:
        return [IMAGE] * _IMAGE_TOKENS
    if "audio" in kind:
        return [AUDIO] * _IMAGE_TOKENS
    text = part.get("text")
    if isinstance(text, str):
        return VOCABULARY.encode(text)
    return VOCABULARY.encode(_json(part))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
