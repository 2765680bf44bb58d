"""The cheap classifier: words and patterns from the configuration."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lexora_router.choosing.decide.label import Label
from lexora_router.choosing.decide.text import excerpt
from lexora_router.config import RuleConfig
from lexora_router.config.patterns import MAX_TEXT, Pattern, compiled


@dataclass(frozen=True, slots=True)
class TaskRule:
    """Tasks in which one of the patterns occurs have this capability."""

    patterns: tuple[Pattern, ...]
    capability: str
    confidence: float


def compile_rules(configured: Iterable[RuleConfig], capabilities: frozenset[str]) -> tuple[TaskRule, ...]:
    """The rules in their order, without those for capabilities that no model has."""
    return tuple(
        TaskRule((*_words(rule.words), *map(compiled, rule.patterns)), rule.capability, rule.confidence)
        for rule in configured
        if rule.capability in capabilities
    )


def match(rules: Sequence[TaskRule], text: str) -> Label | None:
    """The label of the first rule that fits the beginning or the end of a task; None when none does."""
    shown = excerpt(text, MAX_TEXT)
    for rule in rules:
        found = next((hit for pattern in rule.patterns if (hit := pattern.search(shown))), None)
        if found is not None:
            return Label(rule.capability, rule.confidence, f"A rule for it found {found.group()[:80]!r}.", "rules")
    return None


def _words(words: Sequence[str]) -> tuple[Pattern, ...]:
    if not words:
        return ()
    return (re.compile("|".join(map(_word, sorted(words, key=len, reverse=True))), re.IGNORECASE),)


def _word(word: str) -> str:
    """The word as a pattern: not inside a longer one, except where words are not separated (Japanese)."""
    before = r"(?<![A-Za-z0-9_])" if _is_latin(word[0]) else ""
    after = r"(?![A-Za-z0-9_])" if _is_latin(word[-1]) else ""
    return before + re.escape(word) + after


def _is_latin(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")
