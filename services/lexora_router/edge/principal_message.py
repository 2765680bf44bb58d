"""A principal in the contract's words."""

from lexora.v1.principal_pb2 import SCOPE_ADMIN, SCOPE_CALL, SCOPE_OBSERVE, GetPrincipalResponse
from lexora_contract.access import Scope
from lexora_router.principal import Principal

_SCOPES = {Scope.CALL: SCOPE_CALL, Scope.OBSERVE: SCOPE_OBSERVE, Scope.ADMIN: SCOPE_ADMIN}


def principal_message(principal: Principal) -> GetPrincipalResponse:
    """What a caller may know of itself."""
    return GetPrincipalResponse(
        tenant=principal.tenant,
        key=principal.key,
        name=principal.name,
        models=principal.models,
        operations=principal.operations,
        scopes=[number for scope, number in _SCOPES.items() if scope in principal.scopes],
    )
