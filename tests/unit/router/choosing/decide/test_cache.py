import pytest

from lexora_router.choosing.decide.cache import Memory


def test_an_answer_is_known_for_its_time() -> None:
    memory = Memory[str](2, 10.0)
    memory.put(b"a", "A", 100.0)
    assert memory.get(b"a", 109.9) == "A"
    assert memory.get(b"a", 110.0) is None
    assert len(memory) == 0


def test_the_one_that_was_not_used_for_longest_goes() -> None:
    memory = Memory[str](2, 10.0)
    memory.put(b"a", "A", 0.0)
    memory.put(b"b", "B", 0.0)
    assert memory.get(b"a", 1.0) == "A"
    memory.put(b"c", "C", 1.0)
    assert [memory.get(key, 1.0) for key in (b"a", b"b", b"c")] == ["A", None, "C"]
    for number in range(1000):
        memory.put(b"%d" % number, "x", 1.0)
    assert len(memory) == 2


@pytest.mark.parametrize(("size", "ttl"), [(0, 10.0), (10, 0.0)])
def test_without_room_or_time_nothing_is_kept(size: int, ttl: float) -> None:
    memory = Memory[str](size, ttl)
    memory.put(b"a", "A", 0.0)
    assert memory.get(b"a", 0.0) is None
    assert len(memory) == 0
