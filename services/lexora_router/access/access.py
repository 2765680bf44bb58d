"""The one question that every rpc asks first: which principal is this?"""

from typing import Protocol

from lexora_contract.port import CallContext
from lexora_router.principal import ANYBODY, Principal


class Access(Protocol):
    """Finds the principal of a call by the credentials in its context.

    Raises Unauthenticated for credentials that are missing, malformed, unknown, expired or revoked, and AccessUnavailable
    where that cannot be found out now.
    """

    def known(self, context: CallContext) -> Principal | None:
        """The principal, where it takes no waiting; None: `find` it."""

    async def find(self, context: CallContext) -> Principal:
        """The principal, with as much waiting as it takes."""
        ...


class OpenAccess:
    """`auth.mode: off`: no credentials are asked for, and none are looked at."""

    def known(self, context: CallContext) -> Principal:
        """Anybody."""
        return ANYBODY

    async def find(self, context: CallContext) -> Principal:
        """Anybody."""
        return ANYBODY
