"""Reads YAML into plain data and remembers where each key stood.

Stricter than PyYAML's safe loader: no repeated keys, no tags, no dates (`api_version: 2024-10-21` is text), no octal or
base-60 numbers, and a bound on what aliases may expand to. Messages never repeat values.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from lexora_router.config.problems import Path, Problem, Where

MAX_BYTES = 2**20
MAX_VALUES = 50_000  # after the expansion of aliases
MAX_DEPTH = 32
_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_IMPLICIT = (  # tag, pattern, first characters
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"(?i:true|false|yes|no|on|off)", list("tTfFyYnNoO")),
    ("int", r"[-+]?(0|[1-9][0-9_]{0,30})", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?i:inf)|\.(?i:nan)",
        list("-+0123456789."),
    ),
    ("merge", r"<<", ["<"]),
)

_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": lambda _: None,
    "str": str,
    "merge": str,
    "bool": lambda text: _BOOLEANS[text.lower()],
    "int": lambda text: int(text.replace("_", "")),
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's way


for _tag, _pattern, _first in _IMPLICIT:
    _Loader.add_implicit_resolver(_TAG + _tag, re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass
class Tree:
    """Plain data, where its keys stood, and what was wrong with it."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, Where] = field(default_factory=dict)
    replaced: dict[Path, Where] = field(default_factory=dict)  # by a variable or option: where the file had the key
    problems: list[Problem] = field(default_factory=list)
    broken: bool = False  # it could not be read at all: `data` says nothing

    def where(self, path: Path) -> Where | None:
        """Return where a key stood, or the nearest key above it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return None

    def fail(self, where: Where | None, message: str, path: Path = (), *, broken: bool = False) -> None:
        """Note a problem."""
        self.problems.append(Problem(where, path, message))
        self.broken = self.broken or broken


def read_map(text: str, source: str) -> Tree:
    """Read a file's text, whose top must be a map. Never raises for bad text: see `Tree.problems`."""
    tree = Tree(origins={(): Where(source)})
    value = _read(text, tree, lambda mark: Where(source, mark.line + 1), Where(source))
    if isinstance(value, dict):
        tree.data = value
    elif value is not None:
        tree.fail(Where(source), "must be a map of sections at the top", broken=True)
    return tree


def read_value(text: str, variable: str) -> tuple[Any, list[Problem]]:
    """Read the list or map that an environment variable holds."""
    tree, where = Tree(), Where(variable, variable=True)
    value = _read(text, tree, lambda _: where, where)
    return value, tree.problems


def _read(text: str, tree: Tree, locate: Callable[[yaml.Mark], Where], top: Where) -> Any:
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return _Builder(tree, locate).build(node, (), 0) if node is not None else None
    except _TooLarge as error:
        tree.fail(top, str(error), broken=True)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = top if top.variable or mark is None else Where(top.source, mark.line + 1, mark.column + 1)
        tree.fail(where, f"not valid YAML: {_syntax(error)}", broken=True)
    except yaml.reader.ReaderError as error:
        where = top if top.variable else Where(top.source, text.count("\n", 0, error.position) + 1)
        tree.fail(where, "not valid YAML: a control character", broken=True)
    except RecursionError:
        tree.fail(top, f"nested deeper than {MAX_DEPTH} levels", broken=True)
    finally:
        if loader is not None:
            loader.dispose()
    return None


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "bad syntax"
    # PyYAML quotes what follows * & ! in its message: it may be a password that begins so.
    if re.search(r"alias|anchor|tag", f"{problem} {error.context}"):
        return "'*', '&' and '!' begin an alias, an anchor and a tag: put text that begins so in quotes"
    return problem


class _TooLarge(Exception):
    """The text describes more than a configuration can need."""


class _Builder:
    """Turns nodes into data; one per text."""

    def __init__(self, tree: Tree, locate: Callable[[yaml.Mark], Where]) -> None:
        self._tree = tree
        self._locate = locate
        self._count = 0

    def build(self, node: Node, path: Path, depth: int) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            raise _TooLarge(f"more than {MAX_VALUES} values, aliases included")
        if depth > MAX_DEPTH:
            raise _TooLarge(f"nested deeper than {MAX_DEPTH} levels, or an alias that contains itself")
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return self._map(node, path, depth)
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return [self._item(item, (*path, index), depth) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        return self._bad(node, path)

    def _item(self, node: Node, path: Path, depth: int) -> Any:
        self._tree.origins[path] = self._locate(node.start_mark)
        return self.build(node, path, depth + 1)

    def _map(self, node: MappingNode, path: Path, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            mark = key_node.start_mark
            if key_node.tag == _TAG + "merge":
                merged = {**self._merge(value_node, path, depth), **merged}
                continue
            if not isinstance(key_node, ScalarNode):
                self._tree.fail(self._locate(mark), "a key must be plain text", path)
                continue
            key = str(key_node.value)
            if not _is_unicode(key):
                self._tree.fail(self._locate(mark), "a key is not valid Unicode", path)
                continue
            if key in lines:
                note = f"duplicate key, it is already on line {lines[key]}"
                self._tree.fail(self._locate(mark), note, (*path, key))
            lines.setdefault(key, mark.line + 1)
            self._tree.origins[(*path, key)] = self._locate(mark)
            own[key] = self.build(value_node, (*path, key), depth + 1)
        return {**merged, **own}

    def _merge(self, node: Node, path: Path, depth: int) -> dict[str, Any]:
        """Return what `<<` brings in: of several maps, the first that has a key wins."""
        brought: dict[str, Any] = {}
        for one in node.value if isinstance(node, SequenceNode) else [node]:
            value = self.build(one, path, depth + 1)
            if isinstance(value, dict):
                brought = {**value, **brought}
            else:
                self._tree.fail(self._locate(node.start_mark), "<< must name a map", path)
        return brought

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        text = str(node.value)
        if not _is_unicode(text):
            self._tree.fail(self._locate(node.start_mark), "is not valid Unicode", path)
            return ""
        try:
            return _SCALARS[node.tag.removeprefix(_TAG)](text)
        except (KeyError, ValueError):  # a tag of another kind, or one that the text does not fit: `!!int abc`
            return self._bad(node, path)

    def _bad(self, node: Node, path: Path) -> None:
        self._tree.fail(self._locate(node.start_mark), "YAML tags ('!...') are not allowed", path)


def _is_unicode(text: str) -> bool:
    """Whether it has no half of a pair of code units, which an escape in quotes can write."""
    return not any("\ud800" <= char <= "\udfff" for char in text)
