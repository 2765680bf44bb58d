"""The families of engines: one row each, by the name that `type` has in the configuration."""

from collections.abc import Mapping
from typing import Any

from lexora_router.adapters.adapter import Adapter, ListedModel, LoadMetrics, Translation
from lexora_router.adapters.anthropic import Anthropic
from lexora_router.adapters.azure import Azure
from lexora_router.adapters.openai_compatible import OpenAiCompatible
from lexora_router.adapters.vllm import Vllm

DEFAULT = "vllm"
ADAPTERS: dict[str, type[Adapter]] = {
    DEFAULT: Vllm,
    "openai_compatible": OpenAiCompatible,
    "azure": Azure,
    "anthropic": Anthropic,
}


def family_of(backend: Mapping[str, Any]) -> type[Adapter] | None:
    """The family of a backend by its configuration, None for an unknown `type`.

    An `openai_compatible` one with the section of a family is of that family: Azure's were configured so before it had a type.
    """
    kind = backend.get("type", DEFAULT)
    family = ADAPTERS.get(kind) if isinstance(kind, str) else None
    if family is OpenAiCompatible:
        sections = (other for other in ADAPTERS.values() if other.section and backend.get(other.section) is not None)
        return next(sections, family)
    return family


def types_where(able: str) -> str:
    """The types with this ability, for messages."""
    return " or ".join(name for name, family in ADAPTERS.items() if getattr(family, able))


__all__ = ["ADAPTERS", "DEFAULT", "Adapter", "ListedModel", "LoadMetrics", "Translation", "family_of", "types_where"]
