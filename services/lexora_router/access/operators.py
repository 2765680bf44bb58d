"""Callers that need no credentials to observe and administer, by where they are (`admin.allow`)."""

from collections.abc import Iterable

from lexora_contract.access import FOREIGN_PAGE, UNPROVEN, Scope
from lexora_contract.limits import MAX_FORWARDED
from lexora_contract.port import CallContext
from lexora_router.policy.callers import TrustedProxies
from lexora_router.principal import Principal

FORWARDED = "x-forwarded-for"
OPERATOR = Principal(name="admin.allow", scopes=frozenset({Scope.OPEN, Scope.KNOWN, Scope.OBSERVE, Scope.ADMIN}))


class Operators:
    """The networks of `admin.allow`. `proxies` are those whose X-Forwarded-For is believed."""

    def __init__(self, networks: Iterable[str], proxies: TrustedProxies) -> None:
        self._networks = TrustedProxies(networks)  # the same question: is this address in one of these networks?
        self._proxies = proxies

    def allow(self, context: CallContext) -> bool:
        """Whether a caller without credentials is in one of the networks.

        One that was forwarded by a proxy that is not believed is not: its address would be the proxy's. Nor is a page of
        another origin, which any site may show to an operator's browser.
        """
        if UNPROVEN in context.metadata or FOREIGN_PAGE in context.metadata:
            return False
        address = self._proxies.origin(context.peer, _hops(context))
        return bool(address) and self._networks.trusts(address)


def client_address(context: CallContext, proxies: TrustedProxies) -> str:
    """The address of the client, as far as proxies are trusted; empty where it has none."""
    return proxies.client(context.peer, _hops(context) if proxies.trusts(context.peer) else "")


def _hops(context: CallContext) -> str:
    return ",".join(value for name, value in context.metadata if name == FORWARDED)[-MAX_FORWARDED:]
