"""Which model fits a kind of task: by its capabilities, and by whether it can be had now."""

from collections.abc import Sequence
from dataclasses import dataclass

from lexora_contract.answer import Choice
from lexora_router.choosing.decide.label import Label

GENERAL = "general"
DEFAULT = "default"
LOW_CONFIDENCE = 0.1
MAX_ALTERNATIVES = 20


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that may be recommended. `available`: its backend takes calls now."""

    model: str
    capabilities: tuple[str, ...]
    available: bool


def score(offer: Offer, task_type: str) -> float:
    """How well a model fits a kind of task, 0 to 1; 0 as well for one that cannot be had now.

    With the capability: 0.7, and 0.3 shared by all that it can do, so that a specialist goes before a model for everything.
    Without it: 0.3 if it is good for `general` tasks, else 0.
    """
    if not offer.available:
        return 0.0
    if task_type in offer.capabilities:
        return round(0.7 + 0.3 / len(set(offer.capabilities)), 3)
    return 0.3 if GENERAL in offer.capabilities else 0.0


def recommend(label: Label, offers: Sequence[Offer], default: str) -> Choice:
    """The best of the offers, or the default model with LOW_CONFIDENCE when the kind of task is unknown or none fits it.

    Equal ones stay in the order of the offers. The default may stand outside of them only when there are none; it is empty
    where it is not to be had at all, and then there are offers.
    """
    ranked = _ranked(offers, label.task_type or GENERAL)
    if label.task_type and ranked and ranked[0][1] > 0:
        best = ranked[0][0].model
        return Choice(best, label.task_type, label.confidence, label.by, label.reasoning, _others(ranked, best))
    fallback, why = _fallback(ranked, default)
    if label.task_type:
        why = f"No model that takes calls now fits `{label.task_type}`. {why}"
    reasoning = f"{label.reasoning} {why}".strip()
    return Choice(fallback, label.task_type, LOW_CONFIDENCE, DEFAULT, reasoning, _others(ranked, fallback))


def _fallback(ranked: Sequence[tuple[Offer, float]], default: str) -> tuple[str, str]:
    """The default model, or the best of the others where it is not to be had, and a sentence that says so."""
    offered = {offer.model: offer for offer, _ in ranked}
    known = offered.get(default)
    if not ranked or (known is not None and (known.available or not ranked[0][0].available)):
        return default, f"So it is the default model `{default}`."
    best = ranked[0][0].model
    if not default:
        return best, f"So it is `{best}`."
    reason = "is not among the candidates" if known is None else "takes no calls now"
    return best, f"The default model `{default}` {reason}, so it is `{best}`."


def _ranked(offers: Sequence[Offer], task_type: str) -> list[tuple[Offer, float]]:
    scored = [(offer, score(offer, task_type)) for offer in offers]
    return sorted(scored, key=lambda pair: (not pair[0].available, -pair[1]))


def _others(ranked: Sequence[tuple[Offer, float]], chosen: str) -> tuple[tuple[str, float], ...]:
    return tuple((offer.model, found) for offer, found in ranked if offer.model != chosen)[:MAX_ALTERNATIVES]
