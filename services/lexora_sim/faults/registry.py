"""Faults set by the admin endpoint, and which one a request gets."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from lexora_sim.faults.fault import BadFault, Fault, parse_fault

_MAX_RULES = 1000
_NEVER_BY_DEFAULT = ("/health", "/ping", "/version", "/load", "/metrics", "/v1/models")


@dataclass(slots=True)
class Rule:
    """One fault and whom it hits: `left` None means everybody, `path` a prefix, `model` an exact name."""

    text: str
    fault: Fault
    left: int | None
    probability: float
    path: str | None
    model: str | None

    def matches(self, path: str, model: str | None) -> bool:
        """Whether it is meant for this request; without `path` it spares health, metrics and listings."""
        if self.path is None and path in _NEVER_BY_DEFAULT:
            return False
        return path.startswith(self.path or "") and (self.model is None or self.model == model)

    def describe(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "fault": self.text,
            "count": self.left,
            "probability": self.probability,
            "path": self.path,
            "model": self.model,
        }


class FaultRegistry:
    """The rules in the order they came; the first that matches is used."""

    def __init__(self, seed: int) -> None:
        self._rules: list[Rule] = []
        self._dice = random.Random(seed)  # noqa: S311 - repeatable, not secret

    def add(self, spec: Any) -> Rule:
        """Add a rule from its JSON form; raises BadFault."""
        if not isinstance(spec, dict) or not isinstance(spec.get("fault"), str):
            raise BadFault('a fault is {"fault": "KIND[;key=value]", "count", "probability", "path", "model"}')
        count, probability = spec.get("count"), spec.get("probability")
        if count is not None and (not isinstance(count, int) or count < 1):
            raise BadFault("count must be a whole number of at least 1, or null")
        if probability is not None and (not isinstance(probability, int | float) or not 0 <= probability <= 1):
            raise BadFault("probability must be between 0 and 1")
        for key in ("path", "model"):
            if not isinstance(spec.get(key), str | None):
                raise BadFault(f"{key} must be a string or null")
        if len(self._rules) >= _MAX_RULES:
            raise BadFault(f"there are {_MAX_RULES} faults already")
        chance = 1.0 if probability is None else float(probability)
        fault = parse_fault(spec["fault"])
        rule = Rule(spec["fault"], fault, count, chance, spec.get("path"), spec.get("model"))
        if fault.kind != "refuse":
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Drop all rules."""
        self._rules.clear()

    def pick(self, path: str, model: str | None) -> Fault | None:
        """Return the fault of a request and count it; None for most."""
        for rule in self._rules:
            if not rule.matches(path, model) or self._dice.random() >= rule.probability:
                continue
            if rule.left is not None:
                rule.left -= 1
                if rule.left == 0:
                    self._rules.remove(rule)
            return rule.fault
        return None

    @property
    def active(self) -> bool:
        """Whether there is any rule."""
        return bool(self._rules)

    def describe(self) -> list[dict[str, Any]]:
        """Return the rules that are still active."""
        return [rule.describe() for rule in self._rules]
