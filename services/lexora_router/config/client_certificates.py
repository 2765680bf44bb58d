"""Callers that show a certificate."""

from typing import Literal

from pydantic import Field

from lexora_router.config.section import Section
from lexora_router.config.values import MAX_ITEMS, OperationPattern, Positive, Priority, Rate, TenantName, Text


class CertificateConfig(Section):
    """What clients may do whose verified certificate has a certain name. None: as the tenant has it."""

    tenant: TenantName
    models: tuple[Text, ...] = Field(default=(), max_length=MAX_ITEMS)  # globs; none: all
    operations: tuple[OperationPattern, ...] = Field(default=(), max_length=MAX_ITEMS)
    scopes: tuple[Literal["call", "observe", "admin", "facade"], ...] = Field(default=("call",), max_length=4)
    rate: Rate | None = None
    burst: Positive | None = None
    tokens_per_minute: Positive | None = None
    max_concurrent: Positive | None = None
    priority: Priority | None = None
    max_priority: Priority | None = None
