"""A later engine's stream in the shape of the first one's: the client sees one answer."""

from typing import Any

from lexora_router.errors import UpstreamInvalid
from lexora_router.payload.event_stream import data_of, events
from lexora_router.resume.fast_chunk import Glance
from lexora_router.resume.frames import DONE, StreamedChoice, choice_text, read_chunk, read_object, write
from lexora_router.resume.progress import Progress

_IDENTITY = ("id", "object", "created", "model")


class Reshaper:
    """`feed` gives what the client may see; `failure` is what stopped it.

    `kept` is the number of tokens that this engine got instead of making them.
    """

    def __init__(self, progress: Progress, *, chat: bool, hide_ids: bool, kept: int) -> None:
        self._progress = progress
        self._chat = chat
        self._hide_ids = hide_ids
        self._kept = kept
        self._identity = common_fields(progress)
        self._theirs = Glance()
        self._ours = Glance()
        self.failure: UpstreamInvalid | None = None

    def feed(self, block: bytes) -> bytes:
        """Whole events; at one that is no chunk only what came before it is given."""
        shown = []
        try:
            for event in events(block):
                shown.append(self._pass(event))  # what came before a failure stays
        except UpstreamInvalid as failure:
            self.failure = failure
        return b"".join(shown)

    def _pass(self, event: bytes) -> bytes:
        found = None if self._progress.owing else self._theirs.look(event)
        if found is None:
            return self._see(event)
        text, token = found
        self._progress.add_one(int(token), text.decode("utf-8", "replace"))
        if self._hide_ids:
            return self._ours.write(text, None) if text else b""
        return self._ours.write(text, token)

    def _see(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data.startswith(b"{"):
            self._progress.ended = self._progress.ended or data == b"[DONE]"
            return event
        read, chunk = read_chunk(data), read_object(data)
        if read is None or len(read.choices) > 1:
            raise UpstreamInvalid("The engine that was to continue the answer sent something else.")
        chunk |= self._identity
        if "prompt_token_ids" in chunk:
            chunk["prompt_token_ids"] = None
        if isinstance(usage := chunk.get("usage"), dict):
            _move(usage, self._kept)
        if not read.choices:
            self._progress.counted = True
            return write(chunk)
        choice = self._choice(read.choices[0], chunk["choices"][0])
        if choice is None:
            return b""
        chunk["choices"] = [choice]
        theirs, event = event, write(chunk)
        self._learn(theirs, event)
        if not self._identity:  # the client has seen nothing of the engines before
            self._progress.sample = data_of(event)
            self._identity = common_fields(self._progress)
        return event

    def _learn(self, theirs: bytes, ours: bytes) -> None:
        """From now on chunks of one plain token are written without being taken apart."""
        self._theirs.learn(theirs)
        if self._theirs.look(theirs) is None:
            self._theirs = Glance()
        else:
            self._ours.learn(ours)

    def _choice(self, read: StreamedChoice, choice: dict[str, Any]) -> dict[str, Any] | None:
        """The choice in the client's shape, None when there is nothing new in it."""
        progress = self._progress
        text, thinking = choice_text(read)
        progress.add(read.token_ids, text, thinking=thinking)
        progress.finished = progress.finished or read.finish_reason is not None
        text = progress.unseen(text)
        ids = progress.unseen_ids(read.token_ids) if read.token_ids else read.token_ids
        opening = read.delta is not None and read.delta.role is not None and not self._identity
        if not (text or read.finish_reason or opening or (ids and not self._hide_ids)):
            return None
        own: dict[str, Any] = {"prompt_token_ids": None} if "prompt_token_ids" in choice else {}
        if "token_ids" in choice:
            own["token_ids"] = None if self._hide_ids else ids
        if read.delta is None:
            return _as_chat(choice, text, own.get("token_ids")) if self._chat else choice | {"text": text} | own
        return choice | {"delta": _delta(choice["delta"], text, thinking=thinking, opening=opening)} | own


def ending(progress: Progress, reason: str | None, *, chat: bool, usage: bool) -> bytes:
    """The end of an answer whose text is complete: its finish reason unless None, its usage if asked for, the end mark."""
    shape, end = common_fields(progress), b""
    if reason is not None:
        text: dict[str, Any] = {"delta": {"content": ""}} if chat else {"text": ""}
        choice = {"index": 0, **text, "logprobs": None, "finish_reason": reason, "stop_reason": None, "token_ids": None}
        end = write({**shape, "choices": [choice]})
    if usage:
        before, after = len(progress.prompt or ()), len(progress.ids)
        counts = {"prompt_tokens": before, "total_tokens": before + after, "completion_tokens": after}
        end += write({**shape, "choices": [], "usage": counts})
    return end + DONE


def common_fields(progress: Progress) -> dict[str, Any]:
    """What all chunks of the client's stream have in common; empty while it has seen none."""
    first = read_object(progress.sample) if progress.sample else {}
    return {key: first[key] for key in _IDENTITY if key in first}


def _as_chat(choice: dict[str, Any], text: str, ids: list[int] | None) -> dict[str, Any]:
    """A completion's choice as a chat chunk's."""
    reason = choice.get("finish_reason")
    shape = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": reason}
    if reason is not None:
        shape["stop_reason"] = choice.get("stop_reason")
    return shape | {"token_ids": ids}


def _delta(delta: dict[str, Any], text: str, *, thinking: bool, opening: bool) -> dict[str, Any]:
    """A chat delta with the part of its text that is new, and without the role that the client has already."""
    names = ("reasoning", "reasoning_content") if thinking else ("content",)
    rest = {key: value for key, value in delta.items() if opening or key != "role"}
    return rest | {name: text for name in names if name in rest}


def _move(usage: dict[str, Any], kept: int) -> None:
    """Count the tokens that this engine took for its prompt as what they are, output; their sum stays."""
    for key, change in (("prompt_tokens", -kept), ("completion_tokens", kept)):
        if isinstance(count := usage.get(key), int):
            usage[key] = max(count + change, 0)
