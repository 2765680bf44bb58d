"""Whose word counts for where a call comes from, where credentials are asked for: a façade that proves itself, or a network."""

import time
from collections.abc import Callable, Iterable

import structlog

from lexora_contract.access import FACADE, FORWARDED, UNPROVEN, Scope
from lexora_contract.port import CallContext
from lexora_router.access.authenticator import Certificates
from lexora_router.access.key_format import public_id
from lexora_router.access.keys import Keys
from lexora_router.errors import Unauthenticated
from lexora_router.policy.callers import TrustedProxies

LOG_SECONDS = 60.0
_NO_PROOF = "give the facade a key (lexora keys create --facade, auth.facade_key_env), or list it in auth.forwarded"
_BAD_PROOF = "the key that the facade shows does not hold or has not the scope facade: make one by lexora keys create --facade"

_log = structlog.get_logger("lexora.access")


class Forwarders:
    """Decides at a gRPC wire whether the other end is believed what it says of addresses and users of others.

    It is with a key or a certificate that has the scope `facade`, or from one of `networks`. It may never say the tenant, which
    is that of the credentials.
    """

    def __init__(
        self,
        *,
        keys: Keys | None = None,
        certificates: Certificates | None = None,
        networks: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._certificates = certificates
        self._networks = TrustedProxies(networks)
        self._clock = clock
        self._logged = -LOG_SECONDS

    def believed(self, context: CallContext) -> CallContext:
        """The context, without what its sender may not say."""
        named = [pair for pair in context.metadata if pair[0] in FORWARDED]
        if named and not self._trusts(context):
            context.metadata = (*(pair for pair in context.metadata if pair[0] not in FORWARDED), UNPROVEN)
            self._note(context)
        return context

    def _trusts(self, context: CallContext) -> bool:
        if context.peer and self._networks.trusts(context.peer):
            return True
        if context.certificate and self._certificates is not None:
            principal = self._certificates.get(context.certificate)
            if principal is not None and Scope.FACADE in principal.scopes:
                return True
        return any(self._proves(value) for name, value in context.metadata if name == FACADE)

    def _proves(self, key: str) -> bool:
        try:
            principal = None if self._keys is None else self._keys.known(key)
        except Unauthenticated:
            return False
        return principal is not None and Scope.FACADE in principal.scopes

    def _note(self, context: CallContext) -> None:
        now = self._clock()
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            shown = next((value for name, value in context.metadata if name == FACADE), None)
            advice = _NO_PROOF if shown is None else _BAD_PROOF
            key = {} if shown is None else {"key": public_id(shown)}
            _log.warning("forwarded_not_believed", peer=context.peer, **key, advice=advice)
