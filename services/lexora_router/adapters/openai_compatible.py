"""OpenAI itself, and every server that speaks its API."""

from lexora_router.adapters.adapter import Adapter


class OpenAiCompatible(Adapter):
    """Nothing is sure of such a server but OpenAI's own API."""
