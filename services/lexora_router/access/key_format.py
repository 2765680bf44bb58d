"""The form of a key: `sk-lx-<public id>-<secret><check>`.

The public id (12 characters) may stand in logs and metrics. The secret (43) is 256 random bits in base62. The check (8) is the
CRC-32 of all before it in hex: it finds a key that was mistyped or cut off, and lets secret scanners be sure of one (pattern:
`sk-lx-[0-9A-Za-z]{12}-[0-9A-Za-z]{43}[0-9a-f]{8}`). What is stored of a key is its public id and the SHA-256 of the whole. A
slow hash would buy nothing: 256 bits cannot be guessed, however fast each guess is.
"""

import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from zlib import crc32

from lexora_contract.access import KEY_PREFIX

PREFIX = KEY_PREFIX
ID_LENGTH, SECRET_LENGTH, CHECK_LENGTH = 12, 43, 8
SECRET_BITS = 256

_DASH = len(PREFIX) + ID_LENGTH
LENGTH = _DASH + 1 + SECRET_LENGTH + CHECK_LENGTH
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: the only time that its secret is there."""

    id: str
    text: str = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the whole key in hex, as it is stored."""
        return sha256(self.text.encode()).hexdigest()


def new_key() -> NewKey:
    """A key from the system's random numbers."""
    public = new_id()
    body = f"{PREFIX}{public}-{_base62(secrets.randbits(SECRET_BITS), SECRET_LENGTH)}"
    return NewKey(public, body + _check(body))


def new_id() -> str:
    """A public id."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(ID_LENGTH))


def is_key(text: str) -> bool:
    """Whether this is a whole key: its length, its form, and its check."""
    return (
        len(text) == LENGTH
        and text.isascii()
        and text.startswith(PREFIX)
        and text[_DASH] == "-"
        and text[len(PREFIX) : _DASH].isalnum()
        and text[_DASH + 1 :].isalnum()
        and text.endswith(_check(text[:-CHECK_LENGTH]))
    )


def public_id(key: str) -> str:
    """The public id in a key, empty for one from elsewhere."""
    return key[len(PREFIX) : _DASH] if is_key(key) else ""


def _check(body: str) -> str:
    return f"{crc32(body.encode()):08x}"


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, rest = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))
