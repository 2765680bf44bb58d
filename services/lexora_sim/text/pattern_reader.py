"""Regular expressions, and grammars in the EBNF that vLLM takes (xgrammar's), read into patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lexora_sim.text.pattern import Either, Node, OneOf, Repeat, Rule, Sequence

_PRINTABLE = "".join(map(chr, range(32, 127)))
_DIGITS, _SPACE = "0123456789", " "
_WORD = "".join(sign for sign in _PRINTABLE if sign.isalnum() or sign == "_")
_SHORT = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_COUNT = re.compile(r"([*+?])|\{(\d{1,4})(?:(,)(\d{0,4}))?\}")
_CODE = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})")
_MORE = 4  # times beyond the least, where there is no most
_MAX_NESTING = 100


def regex(text: str) -> Node:
    """The pattern of a regular expression: no look-around, no back references. Raises ValueError."""
    return _Regex(text).whole()


def grammar(text: str) -> tuple[Node, Mapping[str, Node]]:
    """The rule `root` of a grammar, and all its rules. Raises ValueError."""
    bare = re.sub(r'("(?:\\.|[^"\\\n])*"|\[(?:\\.|[^\]\\])*\])|#[^\n]*', lambda found: found[1] or "", text)
    heads = list(re.finditer(r"^[ \t]*([A-Za-z_][\w-]*)\s*::=", bare, re.MULTILINE))
    ends = [*(head.start() for head in heads[1:]), len(bare)]
    rules = {head[1]: _Grammar(bare[head.end() : end]).whole() for head, end in zip(heads, ends, strict=False)}
    for name in ("root", *sorted(_named(list(rules.values())))):
        if name not in rules:
            raise ValueError(f"the grammar has no rule {name}")
    return rules["root"], rules


def _named(nodes: list[Node]) -> set[str]:
    """The rules that these nodes name."""
    found = set()
    while nodes:
        match nodes.pop():
            case Rule(name):
                found.add(name)
            case Sequence(inner) | Either(inner):
                nodes += inner
            case Repeat(node, _, _):
                nodes.append(node)
    return found


class _Reader:
    """What both forms have: alternatives, groups, counts, classes of characters."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._nesting = 0

    def whole(self) -> Node:
        """The pattern; raises ValueError unless all of the text belongs to it."""
        found = self._either()
        if self.at < len(self.text):
            raise ValueError(f"unexpected {self.text[self.at]!r} at {self.at}")
        return found

    def blank(self) -> None:
        """Skip what means nothing."""

    def atom(self, sign: str) -> Node:
        """What begins with this sign, which has been read."""
        raise NotImplementedError

    def peek(self) -> str:
        """The next sign, "" at the end."""
        self.blank()
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        """Read a sign; raises ValueError at the end."""
        if self.at >= len(self.text):
            raise ValueError("it ends too early")
        self.at += 1
        return self.text[self.at - 1]

    def _either(self) -> Node:
        options = [self._sequence()]
        while self.peek() == "|":
            self.at += 1
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Either(tuple(options))

    def _sequence(self) -> Node:
        parts = []
        while self.peek() not in ("", "|", ")"):
            parts.append(self._counted(self.atom(self.take())))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _counted(self, node: Node) -> Node:
        self.blank()
        found = _COUNT.match(self.text, self.at)
        if found is None:
            return node
        self.at = found.end()
        if self.text[self.at : self.at + 1] in ("?", "+"):  # as few as possible, or as many: the same texts
            self.at += 1
        if found[1]:
            least, most = {"*": (0, _MORE), "+": (1, 1 + _MORE), "?": (0, 1)}[found[1]]
        else:
            least = int(found[2])
            most = least if not found[3] else int(found[4]) if found[4] else least + _MORE
        if most < least:
            raise ValueError(f"{found[0]} asks for more than it allows")
        return Repeat(node, least, most)

    def group(self) -> Node:
        """What stands in parentheses, the first of which has been read."""
        self._nesting += 1
        if self._nesting > _MAX_NESTING:
            raise ValueError("it is nested too deeply")
        found = self._either()
        if self.take() != ")":
            raise ValueError("a parenthesis is not closed")
        self._nesting -= 1
        return found

    def signs(self) -> Node:
        """What stands in brackets, the first of which has been read."""
        negated = self.text[self.at : self.at + 1] == "^"
        self.at += negated
        found, first = set[str](), True
        while (sign := self.take()) != "]" or first:
            first = False
            low = self.escaped() if sign == "\\" else sign
            if self.text[self.at : self.at + 1] == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self.take()
                high = self.escaped() if high == "\\" else high
                if len(low) != 1 or len(high) != 1 or high < low:
                    raise ValueError(f"{low}-{high} is no range")
                found.update(map(chr, range(ord(low), min(ord(high), ord(low) + 255) + 1)))
            else:
                found.update(low)
        texts = [sign for sign in _PRINTABLE if sign not in found] if negated else sorted(found)
        if not texts:
            raise ValueError("a class of characters is empty")
        return OneOf(tuple(texts))

    def escaped(self) -> str:
        """The signs that a backslash, which has been read, and what follows it stand for."""
        if found := _CODE.match(self.text, self.at):
            self.at = found.end()
            return chr(int(found[1] or found[2], 16))
        sign = self.take()
        if sign.lower() in _SHORT:
            short = _SHORT[sign.lower()]
            return short if sign.islower() else "".join(each for each in _PRINTABLE if each not in short)
        if sign in _CONTROL:
            return _CONTROL[sign]
        if sign.isalnum():
            raise ValueError(f"\\{sign} is not taken here")
        return sign


class _Regex(_Reader):
    def atom(self, sign: str) -> Node:
        match sign:
            case "(":
                if self.text.startswith("?:", self.at):
                    self.at += 2
                elif self.text.startswith("?", self.at):
                    raise ValueError("(? is not taken here, but for (?:")
                return self.group()
            case "[":
                return self.signs()
            case "\\":
                return OneOf(tuple(self.escaped()))
            case ".":
                return OneOf(tuple(_PRINTABLE))
            case "^" | "$":  # the whole text is matched in any case
                return Sequence(())
            case "*" | "+" | "?":
                raise ValueError(f"nothing stands before {sign}")
            case _:
                return OneOf((sign,))


class _Grammar(_Reader):
    def blank(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def atom(self, sign: str) -> Node:
        match sign:
            case "(":
                return self.group()
            case "[":
                return self.signs()
            case '"':
                return OneOf(("".join(self._literal()),))
        found = re.compile(r"[\w-]*").match(self.text, self.at)
        if not (sign.isalpha() or sign == "_") or found is None:
            raise ValueError(f"unexpected {sign!r}")
        self.at = found.end()
        return Rule(sign + found[0])

    def _literal(self) -> list[str]:
        signs = []
        while (sign := self.take()) != '"':
            signs.append(self.escaped() if sign == "\\" else sign)
        return signs
