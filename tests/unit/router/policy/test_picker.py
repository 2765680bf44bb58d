import random
from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.picker import pick, score


@dataclass
class Candidate:
    in_flight: int


candidates = st.lists(st.builds(Candidate, st.integers(0, 50)), min_size=1, max_size=12)


@given(candidates, st.randoms(use_true_random=False))
def test_the_index_is_in_range(pool: list[Candidate], chance: random.Random) -> None:
    assert pick(pool, chance.randrange) in range(len(pool))


@given(st.integers(0, 50), st.integers(0, 50), st.randoms(use_true_random=False))
def test_of_two_the_less_loaded_is_picked(a: int, b: int, chance: random.Random) -> None:
    pool = [Candidate(a), Candidate(b)]
    assert pool[pick(pool, chance.randrange)].in_flight == min(a, b)


@given(candidates, st.randoms(use_true_random=False))
def test_the_most_loaded_is_never_picked_when_it_stands_alone(pool: list[Candidate], chance: random.Random) -> None:
    most = max(candidate.in_flight for candidate in pool)
    if len(pool) > 1 and sum(candidate.in_flight == most for candidate in pool) == 1:
        assert pool[pick(pool, chance.randrange)].in_flight < most


@given(candidates)
def test_an_endpoint_alone_is_picked_without_a_draw(pool: list[Candidate]) -> None:
    def no_draw(_: int) -> int:
        raise AssertionError("nothing to draw")

    assert pick(pool[:1], no_draw) == 0


def test_idle_endpoints_are_picked_about_equally_often() -> None:
    pool = [Candidate(0) for _ in range(4)]
    chance = random.Random(1)
    counts = Counter(pick(pool, chance.randrange) for _ in range(4000))
    assert all(800 < counts[i] < 1200 for i in range(4))


def share_of_the_recovered(weight: float, capacity: int, endpoints: int = 2) -> float:
    """Attempts at a recovered endpoint of all in flight, once each has been placed by `pick`."""
    pool = [Candidate(0) for _ in range(endpoints)]
    weights = [weight] + [1.0] * (endpoints - 1)
    chance = random.Random(1)
    for _ in range(capacity):
        pool[pick(pool, chance.randrange, weights)].in_flight += 1
    return pool[0].in_flight / capacity


def test_a_light_endpoint_gets_its_weights_share() -> None:
    assert abs(share_of_the_recovered(0.1, 1100) - 0.1 / 1.1) < 0.01
    assert abs(share_of_the_recovered(0.5, 1500) - 0.5 / 1.5) < 0.01
    assert abs(share_of_the_recovered(1.0, 1000) - 0.5) < 0.01


def test_a_light_endpoint_is_tried_when_it_is_idle() -> None:
    assert share_of_the_recovered(0.01, 4) == 0.25


@given(candidates, st.randoms(use_true_random=False), st.integers(0, 10**9))
def test_equal_weights_choose_as_none_do(pool: list[Candidate], chance: random.Random, seed: int) -> None:
    one = pick(pool, random.Random(seed).randrange)
    assert pick(pool, random.Random(seed).randrange, [1.0] * len(pool)) == one
    assert pick(pool, random.Random(seed).randrange, [0.5] * len(pool)) == one


@given(st.integers(0, 50), st.integers(0, 50), st.sampled_from([0.1, 0.5, 1.0]), st.randoms(use_true_random=False))
def test_of_two_the_one_with_the_lower_score_is_picked(a: int, b: int, weight: float, chance: random.Random) -> None:
    pool, weights = [Candidate(a), Candidate(b)], [1.0, weight]
    scores = [score(*each) for each in zip(pool, weights, strict=True)]
    assert scores[pick(pool, chance.randrange, weights)] <= min(scores) + 1e-9
