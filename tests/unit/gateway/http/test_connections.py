import pytest

from lexora_gateway.http.connections import LOG_SECONDS, Connections, bounded


class Open:
    """A connection of a name; a request may wait on it."""

    def __init__(self, name: str, closed: list[str]) -> None:
        self.name, self._closed = name, closed
        self.unread = False

    def close_idle(self) -> bool:
        if not self.unread:
            self._closed.append(self.name)
        return not self.unread


@pytest.fixture
def closed() -> list[str]:
    return []


def admit(book: Connections, closed: list[str], *names: str) -> list[Open]:
    """Connections named "address number", of which each must be let in."""
    made = [Open(name, closed) for name in names]
    for each in made:
        assert book.admit(each, each.name[0]) == ""
    return made


def test_an_address_makes_room_with_its_own_oldest_idle_one(closed: list[str]) -> None:
    book = Connections(10, 2)
    a1, a2, _ = admit(book, closed, "a1", "a2", "b1")
    book.busy(a1)
    book.idle(a1)  # it has served a request since, and is the younger one now
    admit(book, closed, "a3")
    assert (closed, book.open) == (["a2"], 3)
    book.forget(a2)  # its end comes later, and counts once
    assert book.open == 3


def test_all_together_make_room_with_the_oldest_idle_one(closed: list[str]) -> None:
    book = Connections(2, 2)
    a1, _ = admit(book, closed, "a1", "b1")
    book.busy(a1)
    admit(book, closed, "c1")
    assert (closed, book.open) == (["b1"], 2)


def test_what_is_busy_is_never_closed(closed: list[str]) -> None:
    book = Connections(3, 2)
    for each in admit(book, closed, "a1", "a2", "b1"):
        book.busy(each)
    late = Open("a3", closed)
    assert book.admit(late, "a") == "server.max_connections_per_address"
    assert book.admit(Open("c1", closed), "c") == "server.max_connections"
    book.busy(late)
    book.idle(late)
    book.forget(late)
    assert (closed, book.open) == ([], 3)
    assert book.refused == {"server.max_connections": 1, "server.max_connections_per_address": 1}
    assert [book.unlogged(now) for now in (0.0, 1.0, LOG_SECONDS)] == [2, 0, 0]


def test_one_whose_request_is_not_read_yet_makes_no_room(closed: list[str]) -> None:
    now = 0.0
    book = Connections(10, 2, clock=lambda: now)
    a1, a2, _ = admit(book, closed, "a1", "a2", "b1")
    a1.unread = True
    admit(book, closed, "a3")
    a2.unread = True
    assert closed == ["a2"]
    now = 10.0
    assert book.close_idle_for(10.0) == 0.0  # a1 is looked at again in a moment
    book.busy(a1)
    assert book.close_idle_for(10.0) == 10.0
    assert (closed, book.open) == (["a2", "b1", "a3"], 1)


def test_nothing_is_kept_of_addresses_that_have_gone(closed: list[str]) -> None:
    book = Connections(1000, 10)
    for number in range(500):
        (made,) = admit(book, closed, f"{chr(number + 200)}1")
        book.busy(made)
        book.forget(made)
    assert (book.open, book._addresses, book._idle, book._of) == (0, {}, {}, {})


def test_half_of_the_descriptors_are_for_clients_and_half_of_that_for_one_of_them() -> None:
    found = [bounded(128), bounded(1), bounded(1000, 100), bounded(1000, 100, 100)]
    assert [(each.most, each.most_per_address) for each in found] == [(64, 32), (1, 1), (100, 50), (100, 100)]


def test_what_is_idle_for_long_is_closed_in_its_order(closed: list[str]) -> None:
    now = 0.0
    book = Connections(10, 10, clock=lambda: now)
    a1, _, b1 = admit(book, closed, "a1", "a2", "b1")
    now = 6.0
    book.busy(b1)
    book.busy(a1)
    book.idle(a1)
    assert book.close_idle_for(10.0) == 4.0
    now = 10.0
    assert book.close_idle_for(10.0) == 6.0
    assert closed == ["a2"]
    now = 100.0
    assert book.close_idle_for(10.0) == 10.0
    assert (closed, book.open) == (["a2", "a1"], 1)
