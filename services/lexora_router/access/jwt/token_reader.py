"""What a token says of itself before anything is verified: only as much as it takes to find the key.

JWS compact form (RFC 7515, 7.1). What a token may not have is refused here, before any key is looked for.
"""

import base64
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lexora_router.errors import Unauthenticated

MAX_TOKEN_BYTES = 16 * 1024
ALGORITHMS = ("RS256", "ES256", "EdDSA")
MAX_KEY_ID = 256
MAX_ISSUER = 1024
# A key, or where to find one, that came with the token would let every token sign itself; `crit` and `b64` change how a token
# must be read (RFC 7515, 4.1.11; RFC 7797), and no such extension is understood here.
REFUSED_HEADERS = ("jwk", "jku", "x5u", "x5c", "crit", "b64", "zip")
_SHAPE = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_SIGNED, _ENCRYPTED = 2, 4  # dots of a signed token (JWS), and of an encrypted one (JWE)


@dataclass(frozen=True, slots=True)
class Unverified:
    """What a token says of itself. `key_id` is empty where it names none; `signature` is of the bytes `signed`."""

    algorithm: str
    key_id: str
    issuer: str
    claims: dict[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def is_token(credential: str) -> bool:
    """Whether a credential has the shape of a token, good or bad. An API key has no dots."""
    return credential.count(".") in (_SIGNED, _ENCRYPTED)


def read(token: str) -> Unverified:
    """Read a token as far as nothing has to be believed. Raises Unauthenticated; its message has no part of the token."""
    if len(token) > MAX_TOKEN_BYTES:
        raise _malformed(f"The token is longer than {MAX_TOKEN_BYTES // 1024} KiB.")
    parts = _SHAPE.fullmatch(token)
    if parts is None:
        raise _malformed("The token is malformed: a signed token is three parts of base64url with a dot between them.")
    header, claims = _object(parts[1], "header"), _object(parts[2], "body")
    for name in REFUSED_HEADERS:
        if name in header:
            raise _malformed(f"The token's header has `{name}`, which is not accepted.")
    algorithm, key_id, issuer = header.get("alg"), header.get("kid", ""), claims.get("iss")
    if algorithm not in ALGORITHMS:
        raise _malformed(f"The token's algorithm is none of {', '.join(ALGORITHMS)}.")
    if not isinstance(key_id, str) or len(key_id) > MAX_KEY_ID:
        raise _malformed(f"The token's `kid` is no text of at most {MAX_KEY_ID} characters.")
    if not isinstance(issuer, str) or not 0 < len(issuer) <= MAX_ISSUER:
        raise _malformed("The token names no issuer: `iss` is missing or no text.")
    return Unverified(algorithm, key_id, issuer, claims, token[: parts.end(2)].encode(), _bytes(parts[3], "signature"))


def _malformed(message: str) -> Unauthenticated:
    return Unauthenticated(message, "malformed")


def _object(part: str, what: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(_bytes(part, what))
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        found = None
    if not isinstance(found, dict):
        raise _malformed(f"The token is malformed: its {what} is no JSON object.")
    return found


def _bytes(part: str, what: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        raise _malformed(f"The token is malformed: its {what} is no base64url.") from None
