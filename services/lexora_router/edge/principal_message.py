"""A principal in the contract's words."""

from lexora.v1.principal_pb2 import GetPrincipalResponse
from lexora_router.edge.key_messages import SCOPES
from lexora_router.principal import Principal


def principal_message(principal: Principal) -> GetPrincipalResponse:
    """What a caller may know of itself."""
    return GetPrincipalResponse(
        tenant=principal.tenant,
        key=principal.key,
        name=principal.name,
        models=principal.models,
        operations=principal.operations,
        scopes=[number for scope, number in SCOPES.items() if scope in principal.scopes],
    )
