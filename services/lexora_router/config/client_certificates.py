"""Callers that show a certificate."""

from typing import Literal

from pydantic import Field

from lexora_router.config.granted import Granted
from lexora_router.config.values import MAX_ITEMS, OperationPattern, TenantName, Text


class CertificateConfig(Granted):
    """What clients may do whose verified certificate has a certain name. None: as the tenant has it."""

    tenant: TenantName
    models: tuple[Text, ...] = Field(default=(), max_length=MAX_ITEMS)  # globs; none: all
    operations: tuple[OperationPattern, ...] = Field(default=(), max_length=MAX_ITEMS)
    scopes: tuple[Literal["call", "observe", "admin", "facade"], ...] = Field(default=("call",), max_length=4)
