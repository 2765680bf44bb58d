"""Tokens of all providers: verified once, then found by their digest until they expire."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lexora_router.access.jwt.claims import principal_of
from lexora_router.access.jwt.key_cache import KeyCache
from lexora_router.access.jwt.key_set import KeySet
from lexora_router.access.jwt.key_sources import FILE_SECONDS, reader_of
from lexora_router.access.jwt.revoked_tokens import RevokedTokens
from lexora_router.access.jwt.token_reader import read
from lexora_router.access.jwt.verification import check_claims, signing_key
from lexora_router.config.jwt import JwtProvider
from lexora_router.errors import Unauthenticated
from lexora_router.principal import Principal

MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class _Verified:
    principal: Principal
    until: float  # of the wall clock, as `exp` is
    issuer: str
    key: bytes  # digest of the key that it was verified with
    id: str | None = None  # its `jti`


class Tokens:
    """Finds the principals of tokens. Make it inside the event loop; `start`, then `stop`.

    Providers that are configured as in `previous` keep their keys and verified tokens: `start` takes them over. `now` is the
    wall clock, `clock` is monotonic, both in seconds.
    """

    def __init__(
        self,
        providers: Sequence[JwtProvider],
        previous: "Tokens | None" = None,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._providers = {provider.issuer: provider for provider in providers}
        self._seen: dict[bytes, _Verified] = {}
        self._keys: dict[str, KeyCache] = {}
        kept = {} if previous is None else previous._kept(self._providers)
        self._kept_from = previous if kept else None
        self._revoked: dict[str, RevokedTokens] = {}
        for issuer, provider in self._providers.items():
            self._keys[issuer] = kept.get(issuer) or key_cache(provider, clock)
            if provider.revoked_file is not None:
                known = previous._revoked.get(issuer) if previous is not None and issuer in kept else None
                self._revoked[issuer] = known or RevokedTokens(provider.label, Path(provider.revoked_file))

    def known(self, token: str) -> Principal | None:
        """The principal of a token that was verified before and still holds; None: `find` it."""
        verified = self._seen.get(hashlib.sha256(token.encode()).digest())
        return verified.principal if verified is not None and verified.until > self._now() else None

    async def find(self, token: str, source: str = "") -> Principal:
        """The principal of a token. Raises Unauthenticated, or AccessUnavailable while its issuer's keys cannot be read.

        `source`: see KeyCache.
        """
        said = read(token)
        provider = self._providers.get(said.issuer)
        if provider is None:
            raise Unauthenticated("The token's issuer is none of those that are configured.")
        if said.algorithm not in provider.algorithms:
            raise Unauthenticated(f"The token's algorithm is none of {', '.join(provider.algorithms)}.")
        cache = self._keys[said.issuer]
        keys = cache.fitting(said.key_id, said.algorithm) or await cache.find(said.key_id, said.algorithm, source)
        if not keys:
            raise Unauthenticated("The token's key is none of its issuer's.")
        key = signing_key(said, keys)
        until = check_claims(said.claims, provider, self._now())
        principal, token_id = principal_of(said.claims, provider), said.claims.get("jti")
        if (revoked := self._revoked.get(said.issuer)) is not None:
            revoked.check(token_id)
        self._remember(token, _Verified(principal, until, said.issuer, key.digest, token_id))
        return principal

    def start(self) -> None:
        """Begin to read keys that are not read yet, and to forget tokens that are revoked or whose key is withdrawn."""
        previous, self._kept_from = self._kept_from, None
        for issuer, cache in self._keys.items():
            if previous is None or previous._keys.get(issuer) is not cache:
                cache.start()
            cache.changed = lambda keys, issuer=issuer: self._withdrawn(issuer, keys)  # type: ignore[misc]
        for issuer, revoked in self._revoked.items():
            if previous is None or previous._revoked.get(issuer) is not revoked:
                revoked.start()
            revoked.changed = partial(self._forget, issuer, lambda each, revoked=revoked: each.id in revoked.ids)  # type: ignore[misc]
        if previous is not None:
            kept = previous._kept(self._providers)
            self._seen = {digest: each for digest, each in previous._seen.items() if each.issuer in kept}

    async def stop(self, successor: "Tokens | None" = None) -> None:
        """End what a successor has not taken over."""
        live = () if successor is None else (*successor._keys.values(), *successor._revoked.values())
        own: tuple[KeyCache | RevokedTokens, ...] = (*self._keys.values(), *self._revoked.values())
        await asyncio.gather(*(each.stop() for each in own if not any(each is other for other in live)))

    @property
    def caches(self) -> list[KeyCache]:
        """The keys of each issuer."""
        return list(self._keys.values())

    def _kept(self, providers: dict[str, JwtProvider]) -> dict[str, KeyCache]:
        return {issuer: self._keys[issuer] for issuer, each in self._providers.items() if providers.get(issuer) == each}

    def _remember(self, token: str, verified: _Verified) -> None:
        if len(self._seen) >= MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[hashlib.sha256(token.encode()).digest()] = verified

    def _withdrawn(self, issuer: str, keys: KeySet) -> None:
        self._forget(issuer, lambda each: each.key not in keys.digests)

    def _forget(self, issuer: str, ended: Callable[[_Verified], bool]) -> None:
        gone = [digest for digest, each in self._seen.items() if each.issuer == issuer and ended(each)]
        for digest in gone:
            del self._seen[digest]


def key_cache(provider: JwtProvider, clock: Callable[[], float]) -> KeyCache:
    """The keys of a provider; a file is looked at more often than an issuer is asked."""
    most = FILE_SECONDS if provider.jwks_file is not None else float("inf")
    return KeyCache(
        provider.label,
        reader_of(provider),
        refresh=min(provider.refresh, most),
        cooldown=min(provider.cooldown, most),
        max_stale=provider.max_stale,
        clock=clock,
    )
