"""Keys of a body that must be there once and in small letters, for they name what belongs to a tenant.

Engines differ in which of several keys they take (see `one_model`): what was checked may not be what is used.
"""

import json

import re2

from lexora_router.errors import InvalidRequest

# Go takes this letter for an s, and Kelvin's sign for a k.
_LONG_S = "\u017f".encode()
_KELVIN = "\u212a".encode()


class SingleKeys:
    """Some keys at the top of JSON objects."""

    def __init__(self, *names: str) -> None:
        self._names = frozenset(names)
        longest = max(map(len, names))
        odd = rb"\\u[02]|" + _LONG_S + b"|" + _KELVIN
        whole = "|".join(f'{name}"' for name in names).encode()
        # A key in any case, or the beginning of one up to an escape or a letter of two forms. Values may look like it.
        self._written = re2.compile(b'(?i)"(?:%s|[a-z_]{0,%d}(?:%s))' % (whole, longest - 1, odd))

    def may_be_in(self, body: bytes) -> bool:
        """Whether one of them may be there, in whatever form."""
        return self._written.search(body) is not None

    def check(self, body: bytes) -> None:
        """Raise InvalidRequest, which names a key that is there twice or in other letters, or for unreadable JSON."""
        found = [match[0].strip(b'"').decode("latin-1") for match in self._written.finditer(body)]
        if len(found) == len(set(found)) and self._names.issuperset(found):
            return
        seen: set[str] = set()
        for name in _keys(body):
            folded = name.casefold()
            if folded in self._names and (name != folded or folded in seen):
                raise InvalidRequest(f"The body must have `{folded}` once, in small letters.", folded)
            seen.add(folded)


def _keys(body: bytes) -> list[str]:
    """The keys at the top, repeated ones as well."""
    found: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        found[:] = [name for name, _ in pairs]  # the last object to end is the outermost

    try:
        json.loads(body, object_pairs_hook=note, parse_int=len, parse_float=len)
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is no JSON that can be read, or is nested too deeply.") from None
    return found
