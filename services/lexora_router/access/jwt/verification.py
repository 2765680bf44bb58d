"""Whether a token holds: its signature, and the claims that bound it (RFC 7519, 4.1; RFC 8725)."""

from collections.abc import Mapping, Sequence
from typing import Any

from lexora_router.access.jwt.key_set import Key
from lexora_router.access.jwt.token_reader import Unverified
from lexora_router.config.jwt import JwtProvider
from lexora_router.errors import Unauthenticated

_MOST = 2**53  # seconds; beyond it numbers of JSON are not exact


def signing_key(token: Unverified, keys: Sequence[Key]) -> Key:
    """The one of these keys, all for the token's algorithm, that signed it. Raises Unauthenticated."""
    for key in keys:
        if key.verifier.Algorithm.verify(token.signed, key.verifier.key, token.signature):
            return key
    raise Unauthenticated("The token's signature is wrong.")


def check_claims(claims: Mapping[str, Any], provider: JwtProvider, now: float) -> float:
    """Check audience and times; gives the time, in seconds since 1970, from which on the token does not hold.

    The issuer has been compared before: the provider was found by it. Raises Unauthenticated.
    """
    until = _seconds(claims, "exp")
    if until is None:
        raise Unauthenticated("The token has no claim `exp`: a token that never ends is not accepted.", "claims")
    if until + provider.leeway <= now:
        raise Unauthenticated("The token has expired.", "expired")
    begin = _seconds(claims, "nbf")
    if begin is not None and begin - provider.leeway > now:
        raise Unauthenticated("The token is not valid yet.", "claims")
    audience = claims.get("aud")
    if audience is None:
        raise Unauthenticated("The token has no claim `aud`.", "claims")
    if not any(each in provider.audience for each in (audience if isinstance(audience, list) else (audience,))):
        raise Unauthenticated("The token is for another audience.", "claims")
    return until + provider.leeway


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MOST:
        raise Unauthenticated(f"The token's claim `{name}` must be a number of seconds since 1970.", "claims")
    return value
