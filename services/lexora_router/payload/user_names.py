"""The names that a request's JSON gives its user, brought to one name: of the tenant that is charged."""

import re
from hashlib import blake2b

import msgspec

from lexora_contract.key_text import without_secrets
from lexora_contract.limits import MAX_USER, MAX_USER_READ

_HASH_BYTES = 16
# Claude Code names a user, an account and a session; each session would be a tenant of its own.
_CLAUDE_SESSION = re.compile(r"(user_.*)_session_[\w-]*", re.DOTALL)


class UserNames(msgspec.Struct, gc=False):
    """The fields that may name a user. All but `user` are read leniently: they are the engine's to judge."""

    user: str | None = None
    safety_identifier: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()

    def named(self) -> str:
        """The user: `user`, else OpenAI's `safety_identifier`, else Anthropic's `metadata.user_id`; empty for none."""
        name = self.user
        if not name and (self.safety_identifier or self.metadata):
            name = text_of(self.safety_identifier) or _metadata_user(self.metadata)
        return bounded(name) if name else ""


class _Metadata(msgspec.Struct, gc=False):
    user_id: str | None = None


class _ClaudeUser(msgspec.Struct, gc=False):
    """What Claude Code writes into `user_id` since 2.1.78, as JSON in a string."""

    device_id: str
    session_id: str
    account_uuid: str = ""


_text = msgspec.json.Decoder(str).decode
_metadata = msgspec.json.Decoder(_Metadata).decode
_claude_user = msgspec.json.Decoder(_ClaudeUser).decode
_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def bounded(name: str) -> str:
    """A name of at most MAX_USER characters, without a key's secret.

    Of a longer one it has the beginning and a hash, so that it stays one of its own.
    """
    name = without_secrets(name)
    if len(name) <= MAX_USER:
        return name
    digest = blake2b(name[:MAX_USER_READ].encode("utf-8", "replace"), digest_size=_HASH_BYTES).hexdigest()
    return f"{name[: MAX_USER - len(digest) - 1]}~{digest}"


def text_of(raw: msgspec.Raw) -> str:
    """A JSON string; empty for what is absent or no string."""
    if not raw:
        return ""
    try:
        return _text(raw)
    except _ERRORS:
        return ""


def _metadata_user(raw: msgspec.Raw) -> str:
    if not raw:
        return ""
    try:
        name = _metadata(raw).user_id or ""
    except _ERRORS:
        return ""
    if name.startswith("{"):
        try:
            user = _claude_user(name)
        except _ERRORS:
            return name
        return f"user_{user.device_id}_account_{user.account_uuid}"
    session = _CLAUDE_SESSION.fullmatch(name)
    return session[1] if session else name
