"""Places for calls that wait for the same thing, shared out by where the calls come from."""

from collections.abc import Callable
from itertools import count


class WaitingPlaces:
    """At most `most` calls wait. One source may have all places, as long as no other needs them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers = count()
        self._by_source: dict[str, dict[int, Callable[[], None]]] = {}
        self.taken = 0

    def take(self, source: str, give_up: Callable[[], None]) -> int | None:
        """A place, by its number; None where there is none.

        When all are taken, the source with most of them loses its newest one to a source that has fewer: `give_up` of that is
        called.
        """
        if self.taken >= self._most:
            most = max(self._by_source, key=lambda each: len(self._by_source[each]))
            newest = next(reversed(self._by_source[most]))
            if len(self._by_source[most]) <= len(self._by_source.get(source, ())) + 1:
                return None
            lost = self._by_source[most][newest]
            self.leave(most, newest)
            lost()
        number = next(self._numbers)
        self._by_source.setdefault(source, {})[number] = give_up
        self.taken += 1
        return number

    def leave(self, source: str, number: int) -> None:
        """Give a place back, also one that is lost."""
        places = self._by_source.get(source, {})
        if places.pop(number, None) is None:
            return
        self.taken -= 1
        if not places:
            del self._by_source[source]
