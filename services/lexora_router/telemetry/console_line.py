"""The console line of one event, with the bytes of structlog's ConsoleRenderer, at a fraction of its time."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from operator import attrgetter

from structlog.dev import ConsoleRenderer

from lexora_contract.escape import escaped

# Text with one of these is written by its repr.
_QUOTED = re.compile("[ \t=\r\n\"']")
_GAP = "\0"
_CACHED = 1024  # names of models, backends and tenants come again and again


class ConsoleLine:
    """Writes lines of one event at one level, with fields of text, numbers and None.

    What stands between the values is found by letting the renderer write once.
    """

    def __init__(self, renderer: ConsoleRenderer, level: str, event: str) -> None:
        self._start, self._after_time = renderer(None, "", {"timestamp": _GAP, "level": level, "event": event}).split(_GAP)
        self._key, self._value, self._end = renderer(None, "", {"key": _GAP}).replace("key", _GAP).split(_GAP)
        self._keys: dict[str, str] = {}  # as they are written

    def __call__(self, timestamp: str, fields: Mapping[str, object]) -> str:
        """The line of these fields, without a line break."""
        parts = [self._start, timestamp, self._after_time]
        for key in sorted(fields):
            value = fields[key]
            parts += (self._keys.get(key) or self._keep(key), shown(value) if type(value) is str else repr(value), self._end)
        return "".join(parts)

    def of(self, names: Iterable[str]) -> Callable[[str, object], str]:
        """What writes the line of a timestamp and an object with these attributes, in a quarter of the time."""
        ordered = sorted(names)
        parts = [self._start, _GAP, self._after_time]
        for name in ordered:
            parts += (self._keep(name), _GAP, self._end)
        template, values = "".join(parts).replace("%", "%%").replace(_GAP, "%s"), attrgetter(*ordered)

        def line(timestamp: str, fields: object) -> str:
            texts = [each if type(each) is not str or each.isalnum() else shown(each) for each in values(fields)]
            return template % (timestamp, *texts)

        return line

    def _keep(self, key: str) -> str:
        found = self._keys[key] = f" {self._key}{key}{self._value}"
        return found


@lru_cache(_CACHED)
def shown(value: str) -> str:
    """A text as it stands in a line."""
    value = escaped(value)
    return repr(value) if _QUOTED.search(value) else value
