"""Why a call would go where it goes: the live state read in the order of the pipeline, and put into words."""

from lexora_router.edge.explain.explainer import Explainer

__all__ = ["Explainer"]
