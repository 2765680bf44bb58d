"""Anthropic's Messages API: its own clients' bytes pass, and chat completions are translated both ways.

https://docs.anthropic.com/en/api/messages, https://docs.anthropic.com/en/api/models-list
"""

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

import msgspec
from yarl import URL

from lexora_contract.operations import CHAT, COUNT_TOKENS, MESSAGES
from lexora_router.adapters.adapter import Adapter, ListedModel, Translator
from lexora_router.adapters.chat_by_messages import ChatByMessages

VERSION = "2023-06-01"  # https://docs.anthropic.com/en/api/versioning
_MOST_LISTED = "1000"  # of one page, the largest there is


class _Entry(msgspec.Struct):
    id: str
    created_at: str = ""
    display_name: str = ""
    max_input_tokens: int | None = None


_decode_entry = msgspec.json.Decoder(_Entry).decode


class Anthropic(Adapter):
    """Anthropic, or a server that speaks its API."""

    provider = "anthropic"
    sends_end_mark = True
    continues_text = False
    serves = frozenset((MESSAGES, COUNT_TOKENS, CHAT))
    translators: ClassVar[Mapping[str, Translator]] = {CHAT: ChatByMessages}

    def headers(self) -> dict[str, str]:
        """The key has a header of its own, and the version of the API is not optional."""
        return ({"x-api-key": self._key} if self._key else {}) | {"anthropic-version": VERSION}

    def models_url(self, base: URL) -> URL:
        """All models on one page."""
        return super().models_url(base).with_query(limit=_MOST_LISTED)

    def listed(self, entry: bytes) -> ListedModel:
        """The entry as OpenAI would have it."""
        found = _decode_entry(entry)
        model = {"id": found.id, "object": "model", "created": _seconds(found.created_at), "owned_by": "anthropic"}
        if found.display_name:
            model["display_name"] = found.display_name
        return ListedModel(found.id, msgspec.json.encode(model), found.max_input_tokens)


def _seconds(date: str) -> int:
    """RFC 3339 in seconds since 1970; 0 for what is no date."""
    try:
        return int(datetime.fromisoformat(date).timestamp())
    except (ValueError, OverflowError):
        return 0
