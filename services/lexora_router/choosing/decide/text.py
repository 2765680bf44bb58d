"""The text of a task: where a call has it, one form for what means the same, and pieces that are short enough."""

import re
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from lexora_contract.limits import MAX_TASK

# Read before the text is brought to one form, which may make it shorter or longer.
_MAX_RAW = 2 * MAX_TASK
_CUT = " [...] "
_SPACE = re.compile(r"\s+")


def normalised(text: str) -> str:
    """The text in one form: NFKC, each run of white space one blank, at most MAX_TASK characters, the middle of more cut out.

    Upper and lower case stay: they may distinguish a name from a word.
    """
    plain = unicodedata.normalize("NFKC", excerpt(text, _MAX_RAW))
    return excerpt(_SPACE.sub(" ", plain).strip(), MAX_TASK)


def excerpt(text: str, limit: int) -> str:
    """The text, or its beginning and its end: what is asked stands before or behind what it is asked of."""
    if len(text) <= limit:
        return text
    kept = limit - len(_CUT)
    return f"{text[: kept - kept // 2]}{_CUT}{text[len(text) - kept // 2 :]}"


def digest(text: str, salt: str = "") -> bytes:
    """A short key for a text; what is known of it under one salt (of 64 characters at most) is not known under another."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=salt.encode()).digest()


class _Part(msgspec.Struct, gc=False):
    text: str | None = None


class _Message(msgspec.Struct, gc=False):
    role: str = "user"
    content: msgspec.Raw = msgspec.Raw()


class _Body(msgspec.Struct, gc=False):
    messages: list[msgspec.Raw] | None = None
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


_body = msgspec.json.Decoder(_Body)
_message = msgspec.json.Decoder(_Message)
_texts = msgspec.json.Decoder(str | list[msgspec.Raw] | None)
_part = msgspec.json.Decoder(_Part | str)


def task_of(body: bytes) -> str:
    """What the last user message of a call says, or its prompt: the text parts only. Empty where there is no text.

    `body` is the JSON of a chat, completion, response or message.
    """
    try:
        fields = _body.decode(body)
    except msgspec.DecodeError:
        return ""
    if fields.messages is not None:
        return _last_of(fields.messages)
    if fields.prompt:
        return _joined(fields.prompt)
    return _of_input(fields.input)


def _of_input(raw: msgspec.Raw) -> str:
    """Of OpenAI's responses: a text, or a list of items."""
    given = _decoded(raw)
    return given if isinstance(given, str) else _last_of(given)


def _last_of(messages: Iterable[msgspec.Raw]) -> str:
    for raw in reversed(list(messages)):
        try:
            message = _message.decode(raw)
        except msgspec.DecodeError:
            continue
        if message.role == "user" and message.content and (text := _joined(message.content)):
            return text
    return ""


def _joined(raw: msgspec.Raw) -> str:
    """A text, or the texts of a list of parts; token ids and pictures have none."""
    given = _decoded(raw)
    return given if isinstance(given, str) else "\n".join(filter(None, map(_text_of, given)))


def _decoded(raw: msgspec.Raw) -> str | list[msgspec.Raw]:
    try:
        return (_texts.decode(raw) if raw else None) or []
    except msgspec.DecodeError:
        return []


def _text_of(raw: msgspec.Raw) -> str:
    try:
        part = _part.decode(raw)
    except msgspec.DecodeError:
        return ""
    return part if isinstance(part, str) else part.text or ""
