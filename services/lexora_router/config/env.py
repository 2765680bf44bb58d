"""Lays `LEXORA_*` environment variables over a configuration tree: `LEXORA_SERVER__PORT` is `server.port`.

Names that users choose (backends, aliases) match what the file has, in any case and with `_` for every other sign; a
name that matches nothing is a new one, in lower case. Lists and maps are written as YAML: `[a, b]`, `{a: b}`. A map is
merged into the file's, a list replaces it. An empty variable counts as unset; `null` clears a key that may be empty.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lexora_router.config.positions import Tree, read_value
from lexora_router.config.problems import Path, Where, nearest, show, show_key
from lexora_router.config.shape import ROOT, Shape, at, leaves

PREFIX = "LEXORA_"
FILE_VARIABLE = "LEXORA_CONFIG"
# Of clients, lexora.client and the commands that ask a router: they may be set for all processes alike.
_CLIENT = frozenset(
    f"LEXORA_{name}"
    for name in "TARGET API_KEY TLS CA CA_FILE CERT KEY TIMEOUT RETRIES USER PRIORITY".split()  # noqa: SIM905 - one line of names
)
_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_RIVALS = (("url", "urls"), ("api_key", "api_key_env"), ("cache_salt_secret", "cache_salt_secret_env"))
RIVALS = dict(_RIVALS) | {second: first for first, second in _RIVALS}
# Kubernetes gives each pod such variables for every service, also for one that is called lexora.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
_LINK_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def apply(environ: Mapping[str, str], tree: Tree) -> None:
    """Change `tree` to what the environment says, noting a problem for every variable that cannot be used."""
    ours = [name for name in environ if name.startswith(PREFIX) and name != FILE_VARIABLE and name not in _CLIENT]
    # Whole maps first, so that a variable for one key inside wins whatever the order of the environment.
    for name in sorted(ours, key=lambda name: (name.count("__"), name)):
        if not _is_service_link(name, environ[name]):
            _apply_one(name, environ[name], tree)


def _is_service_link(name: str, text: str) -> bool:
    if "__" in name:
        return False
    return bool(_SERVICE_LINK.search(name) or (name.endswith("_PORT") and _LINK_ADDRESS.match(text)))


def _apply_one(name: str, text: str, tree: Tree) -> None:
    where = Where(name, variable=True)
    found = _locate(name, tree, where)
    if found is None or text.strip() == "":
        return
    path, form = found
    try:
        value = _parse(text, form, name)
    except _BadValue as error:
        for message in error.args:
            tree.fail(where, message, path)
        return
    put(tree, path, value, where)


def _locate(name: str, tree: Tree, where: Where) -> tuple[Path, Shape] | None:
    """Return the key path that a variable names, or None after noting why there is none."""
    path: Path = ()
    form = ROOT
    data: Any = tree.data
    parts = name.removeprefix(PREFIX).split("__")
    for index, part in enumerate(parts):
        if form.kind is tuple:
            tree.fail(where, "a list is set as a whole, as YAML: [a, b]", path)
            return None
        names = [] if form.fields else _matching(part, data)
        if len(names) > 1:
            tree.fail(where, f"could mean {' or '.join(map(show_key, names))}", path)
            return None
        key = names[0] if names else part.lower()
        below = form.child(key) if part else None
        if below is None:
            tree.fail(where, f"unknown key {show((*path, key))}{_hint(name, parts, index, form)}")
            return None
        path, form = (*path, key), below
        data = data.get(key) if isinstance(data, dict) else None
    return path, form


def _matching(part: str, data: object) -> list[str]:
    wanted = _variable_form(part)
    return [name for name in data if _variable_form(name) == wanted] if isinstance(data, dict) else []


def _variable_form(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _hint(name: str, parts: list[str], index: int, form: Shape) -> str:
    if index == 0:
        known = [PREFIX + "__".join(path).upper() for path, _ in leaves() if "*" not in path]
        one_underscore = {re.sub("_+", "_", variable): variable for variable in known}
        last = [variable for variable in known if variable.endswith("__" + parts[0])]
        near = one_underscore.get(re.sub("_+", "_", name)) or next(iter(last), "") or nearest(name, known)
    else:
        key = nearest(parts[index], form.fields)
        near = PREFIX + "__".join([*parts[:index], key.upper(), *parts[index + 1 :]]) if key else ""
    return near and f", did you mean {near}?"


class _BadValue(ValueError):
    """The text of a variable does not fit its key; every argument is a message."""


def _parse(text: str, form: Shape, name: str) -> Any:
    word = text.strip()
    if form.optional and word.lower() in {"null", "~"}:
        return None
    if form.nested:
        if word[0] not in "[{":
            example = "a YAML list: [a, b]" if form.kind is tuple else "a YAML map: {a: b}"
            raise _BadValue(f"must be written as {example}")
        value, problems = read_value(word, name)
        if problems:
            raise _BadValue(*(problem.message for problem in problems))
        return value
    return text if form.kind is str else _scalar(word, form)


def _scalar(word: str, form: Shape) -> object:
    if word.lower() in form.choices:
        return word.lower()
    if form.kind is bool:
        if word.lower() not in _WORDS:
            raise _BadValue(f"must be true or false (or 1, 0, yes, no, on, off{_also(form)})")
        return _WORDS[word.lower()]
    if form.kind is int:
        if not re.fullmatch(r"[-+]?[0-9][0-9_]{0,30}", word):
            raise _BadValue(f"must be a whole number{_also(form)}")
        return int(word.replace("_", ""))
    return _float(word)


def _also(form: Shape) -> str:
    return "".join(f", or {word}" for word in form.choices)


def _float(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise _BadValue("must be a number") from None


def put(tree: Tree, path: Path, value: Any, where: Where) -> None:
    """Set a key. A map is merged into the one that is there; `url` replaces `urls`, and so on."""
    data = tree.data
    for key in path[:-1]:
        if data.get(str(key)) is None:
            data[str(key)] = {}
        if not isinstance(data[str(key)], dict):
            return  # the file has something else where a section belongs: that is reported there
        data = data[str(key)]
    _set(data, path, value, tree, where)


def _set(data: dict[str, Any], path: Path, value: Any, tree: Tree, where: Where) -> None:
    key = str(path[-1])
    _drop_rival(data, path, tree)
    if isinstance(value, dict) and isinstance(data.get(key), dict):
        for name, inner in value.items():
            _set(data[key], (*path, name), inner, tree, where)
        return
    before = tree.origins.get(path)
    if before is not None and not before.variable and data.get(key) != value:
        tree.replaced[path] = before
    for old in list(_below(tree, path)):
        del tree.origins[old]
    data[key] = value
    tree.origins[path] = where
    for below in _paths(value, path):
        tree.origins[below] = where


def _drop_rival(data: dict[str, Any], path: Path, tree: Tree) -> None:
    """Let a variable with `url` replace the file's `urls` (and so on) instead of contradicting them."""
    section, rival = at(path[:-1]), RIVALS.get(str(path[-1]), "")
    here = tree.origins.get((*path[:-1], rival))
    if section and rival in section.fields and rival in data and not (here and here.variable):
        del data[rival]


def _below(tree: Tree, path: Path) -> Iterator[Path]:
    return (old for old in tree.origins if old[: len(path)] == path)


def _paths(value: Any, path: Path) -> Iterator[Path]:
    """Yield the paths of every key inside a map."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        yield from _paths(inner, (*path, key))
