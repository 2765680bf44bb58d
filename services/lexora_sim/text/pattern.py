"""Texts of a pattern: what a regular expression or a grammar allows, as a tree, and one text of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lexora_sim.text.language import mix

_MAX_DEPTH = 24
_MAX_LENGTH = 4096
_MAX_STEPS = 100_000
_MAX_RULES = 500
_ENDLESS = 10_000


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these texts."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after another."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of these."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """From `least` to `most` times."""

    node: Node
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Rule:
    """What the rule of this name allows."""

    name: str


Node = OneOf | Sequence | Either | Repeat | Rule


def text_of(node: Node, rules: Mapping[str, Node], seed: int) -> str:
    """A text that the pattern allows, the same one for the same seed.

    Raises ValueError where there is none or only too long ones, RecursionError where the rules lead too deep.
    """
    writer = _Writer(rules, seed)
    if writer.height(node) >= _ENDLESS:
        raise ValueError("no text of it has an end")
    writer.write(node, 0)
    return "".join(writer.pieces)


class _Writer:
    def __init__(self, rules: Mapping[str, Node], seed: int) -> None:
        self.pieces: list[str] = []
        self._length = 0
        self._steps = 0
        self._rules = rules
        self._state = mix(seed & 0xFFFFFFFF)
        if len(rules) > _MAX_RULES:
            raise ValueError(f"it has more than {_MAX_RULES} rules")
        self._heights = dict.fromkeys(rules, _ENDLESS)
        for _ in rules:  # each turn settles one more rule
            self._heights = {name: 1 + self.height(rule) for name, rule in rules.items()}

    def height(self, node: Node) -> int:
        """How many rules deep the shallowest text is; _ENDLESS or more where there is none."""
        match node:
            case Sequence(parts):
                return max(map(self.height, parts), default=0)
            case Either(options):
                return min(map(self.height, options))
            case Repeat(inner, least, _):
                return self.height(inner) if least else 0
            case Rule(name):
                return self._heights[name]
            case _:
                return 0

    def write(self, node: Node, depth: int) -> None:
        """Append a text; from a depth on the shallowest one."""
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise ValueError("it repeats too often")
        match node:
            case OneOf(texts):
                self._put(texts[self._random(len(texts))])
            case Sequence(parts):
                for part in parts:
                    self.write(part, depth)
            case Either(options) if depth >= _MAX_DEPTH:
                self.write(min(options, key=self.height), depth)
            case Either(options):
                open_ = [option for option in options if self.height(option) < _ENDLESS]
                self.write(open_[self._random(len(open_))], depth)
            case Repeat(inner, least, most):
                more = 0 if depth >= _MAX_DEPTH or self.height(inner) >= _ENDLESS else self._random(most - least + 1)
                for _ in range(least + more):
                    self.write(inner, depth)
            case Rule(name):
                self.write(self._rules[name], depth + 1)

    def _put(self, text: str) -> None:
        self._length += len(text)
        if self._length > _MAX_LENGTH:
            raise ValueError(f"the text would be longer than {_MAX_LENGTH} characters")
        self.pieces.append(text)

    def _random(self, count: int) -> int:
        self._state = mix((self._state + 0x9E3779B9) & 0xFFFFFFFF)
        return self._state % count
