"""What is wrong with a configuration: where, which key, what. Values are never repeated, they may be secrets."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]  # ("routing", "backends", "main", "models", 0, "name")


@dataclass(frozen=True, order=True)
class Where:
    """A place in a file (lines and columns count from 1), or an environment variable."""

    source: str  # the file as it was named, or the variable
    line: int = 0  # 0: no line
    column: int = 0
    variable: bool = False

    def __str__(self) -> str:
        return ":".join([self.source, *(str(number) for number in (self.line, self.column) if number)])


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `str()` gives `file:line: key.path: message`."""

    where: Where | None
    path: Path
    message: str

    def __str__(self) -> str:
        parts = (str(self.where) if self.where else "", show(self.path), self.message)
        return ": ".join(part for part in parts if part)


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has everything that is wrong, file first, in its order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        in_order = sorted(problems, key=lambda p: (p.where is None or p.where.variable, p.where or Where("")))
        self.problems = list(dict.fromkeys(in_order))
        super().__init__("\n".join(map(str, self.problems)))


def show(path: Path) -> str:
    """Return a key path as people write it: `routing.backends.main.models[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{show_key(part)}"
    return text.removeprefix(".")


def show_key(key: str) -> str:
    """Return a key on one line, cut to 64 characters."""
    cut = key if len(key) <= 64 else key[:61] + "..."
    return cut if cut.isprintable() else ascii(cut)


def nearest(key: str, known: Iterable[str]) -> str:
    """Return the known key that looks most like this one, or an empty string when none does."""
    plain = key[:64].lower().replace("-", "_")
    by_plain = {name.lower().replace("-", "_"): name for name in known}
    close = difflib.get_close_matches(plain, by_plain, n=1, cutoff=0.6)
    return by_plain[close[0]] if close else ""
