"""Whether a request may see what the facade itself serves: the router decides, by the request's credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexora.v1 import principal_pb2
from lexora_contract.port import CallFailed
from lexora_contract.rpcs import GET_PRINCIPAL

if TYPE_CHECKING:
    from lexora_contract.access import Scope
    from lexora_contract.port import CallContext, RouterPort


async def granted(router: RouterPort, scope: Scope, context: CallContext) -> principal_pb2.GetPrincipalResponse:
    """The caller, if it has the scope. Raises CallFailed; nothing is remembered, so that a revoked key ends at once."""
    caller = await router.unary(GET_PRINCIPAL, principal_pb2.GetPrincipalRequest(), context)
    if principal_pb2.Scope.Value(f"SCOPE_{scope.name}") not in caller.scopes:
        raise CallFailed("PERMISSION_DENIED", f"This needs the scope `{scope}`, which these credentials do not have.")
    return caller
