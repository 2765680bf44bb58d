"""Which principal a call is of, where credentials are asked for: the modes of `auth.mode`, put together."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Protocol

from lexora_contract.access import Scope
from lexora_contract.port import CallContext
from lexora_router.access.audit import AuditLog, FailureSums
from lexora_router.access.credentials import credential_of, missing
from lexora_router.access.jwt.token_reader import is_token
from lexora_router.access.key_format import public_id
from lexora_router.access.keys import Keys
from lexora_router.access.operators import OPERATOR, Operators, client_address
from lexora_router.errors import TooManyAttempts, Unauthenticated
from lexora_router.policy.callers import TrustedProxies, network_of
from lexora_router.policy.failed_attempts import FailedAttempts
from lexora_router.principal import Principal

_MAX_TRIED = 8192
_CAUSES = ("missing", "malformed", "several", "unknown", "expired", "revoked", "claims")
_NO_GUESS = frozenset({"expired", "revoked", "claims"})  # they were good once, or a token that an issuer has signed


class Tokens(Protocol):
    """Verifies tokens (JWT). Raises Unauthenticated and AccessUnavailable."""

    def known(self, token: str) -> Principal | None:
        """The principal of a token that was seen before; None: `find` it."""

    async def find(self, token: str, source: str = "", /) -> Principal:
        """The principal of a token; `source` is the network of its client."""
        ...


class Certificates(Protocol):
    """Finds principals by the verified names of client certificates."""

    def get(self, names: tuple[str, ...], /) -> Principal | None:
        """The principal of a certificate with these names (SAN)."""


class Failures:
    """Counts what was not let in: by cause, for metrics, and by address, for its limit. Outlives a configuration.

    What counts against an address is a credential that was not tried lately: a client that repeats one old key guesses nothing.
    """

    def __init__(self, audit: AuditLog, clock: Callable[[], float] = time.monotonic) -> None:
        self.sums = FailureSums(audit)
        self.by_cause = Counter(dict.fromkeys(_CAUSES, 0))  # that are there before the first of each
        self._attempts = FailedAttempts()
        self._tried: OrderedDict[bytes, None] = OrderedDict()
        self._clock = clock

    def count(self, error: Unauthenticated, credential: str, address: str) -> Unauthenticated:
        """Count a failure; gives what to refuse it with. `credential` is empty where there was not one to look up."""
        self.by_cause[error.cause] += 1
        self.sums.add(address, error.cause, public_id(credential) if error.cause in _NO_GUESS else "")
        if not credential or error.cause in _NO_GUESS or self._again(credential):
            return error
        seconds = self._attempts.failed(address, self._clock())
        return TooManyAttempts(error.cause, seconds) if seconds else error

    def _again(self, credential: str) -> bool:
        digest = sha256(credential.encode()).digest()
        again = digest in self._tried
        self._tried[digest] = None
        self._tried.move_to_end(digest)
        if len(self._tried) > _MAX_TRIED:
            self._tried.popitem(last=False)
        return again


class Authenticator:
    """An Access that asks for a credential: a key, a token, or a certificate that was verified at the wire.

    Without `keys` or `tokens` there are none of that kind. Where tokens are verified, what looks like one is never tried as a
    key. A credential in a header goes before a certificate, which may be a proxy's. Without either `operators` may still be
    let in.
    """

    def __init__(
        self,
        *,
        keys: Keys | None = None,
        tokens: Tokens | None = None,
        certificates: Certificates | None = None,
        operators: Operators | None = None,
        failures: Failures,
        proxies: TrustedProxies,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._certificates = certificates
        self._operators = operators
        self._failures = failures
        self._proxies = proxies

    def known(self, context: CallContext) -> Principal | None:
        """The principal, where it takes no waiting."""
        credential = ""
        try:
            credential = credential_of(context)
            if not credential:
                return self._without_credential(context)
            if self._tokens is not None and (self._keys is None or is_token(credential)):
                return self._tokens.known(credential)
            if self._keys is not None:
                return self._keys.known(credential)
            raise missing()
        except Unauthenticated as error:
            raise self._refused(error, credential, context) from None

    async def find(self, context: CallContext) -> Principal:
        """The principal, with as much waiting as it takes."""
        credential = credential_of(context)
        try:
            if self._tokens is not None and (self._keys is None or is_token(credential)):
                return await self._tokens.find(credential, self._network(context))
            assert self._keys is not None
            return await self._keys.find(credential)
        except Unauthenticated as error:
            raise self._refused(error, credential, context) from None

    def _without_credential(self, context: CallContext) -> Principal:
        if context.certificate and self._certificates is not None:
            principal = self._certificates.get(context.certificate)
            if principal is not None and Scope.FACADE not in principal.scopes:  # its clients are not the facade
                return principal
        if self._operators is not None and self._operators.allow(context):
            return OPERATOR
        raise missing()

    def _refused(self, error: Unauthenticated, credential: str, context: CallContext) -> Unauthenticated:
        return self._failures.count(error, credential, self._network(context))

    def _network(self, context: CallContext) -> str:
        return network_of(client_address(context, self._proxies))
