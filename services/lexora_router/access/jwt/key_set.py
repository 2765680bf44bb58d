"""The public keys of an issuer (JWK Set, RFC 7517), as far as tokens may be signed with them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

MAX_DOCUMENT_BYTES = 512 * 1024
MAX_KEYS = 100
MAX_TRIED = 8  # keys that a token without a `kid` is tried with: each costs a verification
LEAST_RSA_BITS = 2048  # RFC 7518, 3.3
MOST_RSA_BITS = 8192  # a signature by a larger one would hold up the event loop
_MOST_TEXT = 2048  # characters of a member: 8192 bits are 1366

# The public members of each type of key: private ones that an issuer publishes by mistake are not even read.
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}


class UnusableKeys(Exception):
    """A document that is no set of keys for tokens; the message says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """One public key for one algorithm. `id` is empty where the issuer gave none."""

    id: str
    algorithm: str
    digest: bytes = field(repr=False)
    verifier: PyJWK = field(repr=False, compare=False)


class KeySet:
    """Keys by id and algorithm."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys = tuple(keys)
        self.digests = frozenset(key.digest for key in self.keys)
        self._by_name: dict[tuple[str, str], tuple[Key, ...]] = {}
        for key in self.keys:
            for name in {key.id, ""}:
                self._by_name[name, key.algorithm] = (*self._by_name.get((name, key.algorithm), ()), key)

    def fitting(self, key_id: str, algorithm: str) -> tuple[Key, ...]:
        """The keys that may have signed a token; without an id all of its algorithm, at most MAX_TRIED."""
        return self._by_name.get((key_id, algorithm), ())[:MAX_TRIED]


def parse_keys(document: bytes) -> KeySet:
    """Read a JWK Set. Keys for other algorithms or purposes are left out. Raises UnusableKeys."""
    if len(document) > MAX_DOCUMENT_BYTES:
        raise UnusableKeys(f"it has more than {MAX_DOCUMENT_BYTES // 1024} KiB")
    try:
        found = msgspec.json.decode(document)
    except (ValueError, RecursionError):
        raise UnusableKeys("it is not JSON") from None
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise UnusableKeys("it is no JWK Set: it has no list `keys`")
    if len(listed) > MAX_KEYS:
        raise UnusableKeys(f"it has more than {MAX_KEYS} keys")
    keys = [key for each in listed if (key := _key(each)) is not None]
    if not keys:
        raise UnusableKeys("it has no key for RS256, ES256 or EdDSA")
    return KeySet(keys)


def _key(jwk: Any) -> Key | None:
    if not isinstance(jwk, dict) or not _for_signatures(jwk):
        return None
    kty, key_id = str(jwk.get("kty")), jwk.get("kid", "")
    algorithm = _ALGORITHMS.get((kty, None if kty == "RSA" else str(jwk.get("crv"))))
    if algorithm is None or jwk.get("alg", algorithm) not in (algorithm, *(("Ed25519",) if algorithm == "EdDSA" else ())):
        return None
    public = {"kty": kty} | {name: jwk.get(name) for name in _MEMBERS[kty]}
    if not isinstance(key_id, str) or not all(isinstance(value, str) and len(value) <= _MOST_TEXT for value in public.values()):
        return None
    try:
        verifier = PyJWK.from_dict(public, algorithm)
    except (PyJWTError, ValueError, TypeError):  # ValueError of `cryptography`, for numbers that are no key
        return None
    if isinstance(verifier.key, RSAPublicKey) and not LEAST_RSA_BITS <= verifier.key.key_size <= MOST_RSA_BITS:
        return None
    digest = hashlib.sha256(msgspec.json.encode([key_id, algorithm, *public.values()])).digest()
    return Key(key_id, algorithm, digest, verifier)


def _for_signatures(jwk: dict[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
