import heapq
import random
from collections.abc import Callable
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.concurrency import AdaptiveLimit, EngineLoad


class Engine:
    """Runs `batch` calls at a time, others wait: TTFT is the wait and a prefill of noisy length. Demand is endless."""

    def __init__(
        self, limit: AdaptiveLimit, *, batch: int, scrape: float | None = None, noise: float = 0.3, seed: int = 1
    ) -> None:
        self.limit = limit
        self.batch = batch
        self.scrape = scrape
        self.noise = noise
        self.prefill = 0.1
        self.hold = 2.0
        self.slowdown = 0.0  # both take longer by this share for every other running call
        self.refuses_beyond: int | None = None
        self.chance = random.Random(seed)
        self.now = 0.0
        self.in_flight = 0
        self.running = 0
        self.waiting: list[tuple[float, int]] = []  # dispatched, in flight then
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.made = 0
        self.seen: list[int] = []
        if scrape:
            self.at(scrape, self.scraped)

    def at(self, delay: float, what: Callable[[], None]) -> None:
        self.made += 1
        heapq.heappush(self.events, (self.now + delay, self.made, what))

    def run(self, seconds: float) -> list[int]:
        """The limits seen at each finished call."""
        self.seen = []
        end = self.now + seconds
        self.feed()
        while self.events and self.events[0][0] <= end:
            self.now, _, what = heapq.heappop(self.events)
            what()
            self.feed()
        self.now = end
        return self.seen

    def feed(self) -> None:
        while self.in_flight < self.limit.limit:
            if self.refuses_beyond is not None and self.in_flight >= self.refuses_beyond:
                self.limit.refused(self.now, self.now)
                return
            self.in_flight += 1
            self.waiting.append((self.now, self.in_flight))
            self.fill()

    def fill(self) -> None:
        while self.running < self.batch and self.waiting:
            dispatched, in_flight = self.waiting.pop(0)
            self.running += 1
            prefill = self.prefill * self.slow() * self.chance.lognormvariate(0.0, self.noise)
            self.at(prefill, lambda dispatched=dispatched, in_flight=in_flight: self.first_token(dispatched, in_flight))  # type: ignore[misc]  # bound now

    def first_token(self, dispatched: float, in_flight: int) -> None:
        self.limit.first_token(self.now - dispatched, in_flight, self.now)
        self.at(self.hold * self.slow() * self.chance.uniform(0.5, 1.5), self.finish)

    def slow(self) -> float:
        return 1 + self.slowdown * (self.running - 1)

    def finish(self) -> None:
        self.in_flight -= 1
        self.running -= 1
        self.seen.append(self.limit.limit)
        self.fill()

    def scraped(self) -> None:
        self.limit.scraped(EngineLoad(waiting=len(self.waiting), kv_cache_usage=self.running / self.batch * 0.9, at=self.now))
        assert self.scrape is not None
        self.at(self.scrape, self.scraped)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scrape", [None, 2.0])
@pytest.mark.parametrize("batch", [8, 32, 128])
def test_the_limit_settles_at_what_the_engine_can_batch(batch: int, scrape: float | None, seed: int) -> None:
    limit = AdaptiveLimit(initial=4, most=1000, scrape_interval=scrape or 5.0)
    engine = Engine(limit, batch=batch, scrape=scrape, seed=seed)
    engine.run(300)
    settled = engine.run(300)
    assert 0.85 * batch <= mean(settled) <= 1.25 * batch
    assert max(settled) <= 1.6 * batch
    assert min(settled) >= 0.6 * batch


@pytest.mark.parametrize(("initial", "batch"), [(4, 1), (16, 4), (64, 8), (256, 32)])
def test_a_start_far_above_the_engine_is_no_excuse(initial: int, batch: int) -> None:
    """No engine numbers, and never a round without a queue: the first call alone shows what TTFT should be."""
    limit = AdaptiveLimit(initial=initial)
    engine = Engine(limit, batch=batch)
    engine.run(300)
    assert batch <= mean(engine.run(300)) <= 1.5 * batch


@pytest.mark.parametrize(("hold", "prefill"), [(0.25, 0.01), (0.5, 0.03), (0.1, 0.005)])
def test_the_queue_of_short_calls_does_not_become_normal(hold: float, prefill: float) -> None:
    """Each call too many adds little to TTFT: learnt as normal step by step, it would let the limit run away."""
    limit = AdaptiveLimit(initial=16)
    engine = Engine(limit, batch=12)
    engine.hold, engine.prefill = hold, prefill
    engine.run(200)
    assert 10 <= mean(engine.run(100)) <= 18


@pytest.mark.parametrize("seed", range(3))
def test_noise_does_not_make_it_collapse(seed: int) -> None:
    """Prompts whose prefill varies by a factor of 7 either way (two sigma), no engine numbers, nothing ever waits."""
    limit = AdaptiveLimit(initial=16, most=64)
    engine = Engine(limit, batch=1000, noise=1.0, seed=seed)
    engine.run(100)
    assert mean(engine.run(400)) >= 32


@pytest.mark.parametrize("noise", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("slowdown", [0.02, 0.05, 0.1])
def test_an_engine_that_only_gets_slower_has_a_limit_and_keeps_it(slowdown: float, noise: float) -> None:
    """It lets nobody wait, and says nothing. At `1 / slowdown` calls it does half of all that it could ever do."""
    limit = AdaptiveLimit(initial=16, most=1000)
    engine = Engine(limit, batch=10_000, noise=noise)
    engine.slowdown = slowdown
    engine.run(1000)
    settled = mean(engine.run(1000))
    assert 1 / slowdown <= settled <= 4 / slowdown
    engine.run(3000)
    assert mean(engine.run(1000)) == pytest.approx(settled, rel=0.3), "an overload that lasts must not become normal"


@pytest.mark.parametrize("noise", [0.3, 0.6, 1.0])
def test_prompts_that_grow_for_an_hour_are_followed(noise: float) -> None:
    """To eight times the length. Now and then the limit falls to see whether that helps, and comes back."""
    limit = AdaptiveLimit(initial=16, most=200)
    engine = Engine(limit, batch=64, noise=noise)
    engine.run(300)
    seen = []
    for _ in range(31):
        engine.prefill *= 1.07
        seen.append(mean(engine.run(100)))
    assert mean(seen) >= 50
    assert sum(each < 32 for each in seen) <= 3


@pytest.mark.parametrize("scrape", [None, 2.0])
def test_it_follows_an_engine_that_shrinks_and_grows_again(scrape: float | None) -> None:
    limit = AdaptiveLimit(initial=32, most=1000, scrape_interval=scrape or 5.0)
    engine = Engine(limit, batch=32, scrape=scrape)
    engine.run(200)
    engine.batch = 12
    engine.run(200)
    assert mean(engine.run(100)) <= 18
    engine.batch = 64
    engine.run(300)
    assert mean(engine.run(100)) >= 50


def test_longer_prompts_become_the_new_normal() -> None:
    limit = AdaptiveLimit(initial=32, most=64)
    engine = Engine(limit, batch=64)
    engine.run(100)
    engine.prefill = 0.8
    engine.run(100)
    assert mean(engine.run(200)) >= 45


def test_a_refusing_engine_is_left_alone_and_tried_again() -> None:
    limit = AdaptiveLimit(initial=64, most=1000)
    engine = Engine(limit, batch=1000)
    engine.refuses_beyond = 20
    engine.run(100)
    assert 12 <= mean(engine.run(100)) <= 22
    engine.refuses_beyond = None
    engine.run(200)
    assert limit.limit > 60


def calls(limit: AdaptiveLimit, ttft: float, start: float, in_flight: int | None = None) -> float:
    """One round, all calls alike, one a second. Returns the instant of the last first token."""
    now = start
    for _ in range(min(max(limit.limit, 8), 32)):
        now += 1.0
        limit.first_token(ttft, limit.limit if in_flight is None else in_flight, now)
    return now


def test_it_doubles_until_the_first_congestion_and_then_adds() -> None:
    limit = AdaptiveLimit(initial=8)
    seen = []
    now = 0.0
    for ttft in (0.1, 0.1, 0.1, 1.0, 0.1, 0.1):
        now = calls(limit, ttft, now + ttft)
        seen.append(limit.limit)
    assert seen == [16, 32, 64, 57, 60, 63]


def test_an_endpoint_that_is_not_used_to_its_limit_does_not_grow() -> None:
    limit = AdaptiveLimit(initial=16)
    calls(limit, 0.1, 0.0, in_flight=5)
    assert limit.limit == 16


def test_calls_dispatched_under_another_limit_are_not_judged() -> None:
    limit = AdaptiveLimit(initial=8)
    changed = calls(limit, 0.1, 0.0)
    for _ in range(100):
        limit.first_token(30.0, 16, changed + 1.0)
    assert limit.limit == 16


def test_refusals_of_one_round_count_once() -> None:
    limit = AdaptiveLimit(initial=100)
    for _ in range(50):
        limit.refused(9.0, 10.0)
    assert limit.limit == 70
    limit.refused(10.5, 11.0)
    assert limit.limit == 49


def test_fresh_engine_numbers_stand_above_ttft() -> None:
    limit = AdaptiveLimit(initial=8, scrape_interval=60.0)
    limit.scraped(EngineLoad(waiting=0, kv_cache_usage=0.5, at=0.0))
    now = calls(limit, 0.1, 0.0)
    assert limit.limit == 16
    limit.scraped(EngineLoad(waiting=0, kv_cache_usage=0.5, at=now + 1))
    now = calls(limit, 5.0, now + 5)
    assert limit.limit == 32
    limit.scraped(EngineLoad(waiting=3, kv_cache_usage=0.5, at=now + 1))
    calls(limit, 0.1, now)
    assert limit.limit == 28


def test_numbers_that_were_acted_upon_are_not_acted_upon_again() -> None:
    limit = AdaptiveLimit(initial=10, scrape_interval=20.0)
    limit.scraped(EngineLoad(waiting=3, kv_cache_usage=0.5, at=0.0))
    now = calls(limit, 0.1, 0.0)
    assert limit.limit == 9
    now = calls(limit, 0.1, now)
    assert limit.limit == 9


def test_a_full_cache_without_a_queue_holds_the_limit() -> None:
    limit = AdaptiveLimit(initial=10)
    limit.scraped(EngineLoad(waiting=0, kv_cache_usage=0.97, at=0.0))
    calls(limit, 0.1, 0.0)
    assert limit.limit == 10


@pytest.mark.parametrize(("age", "limit_then"), [(15.0, 9), (15.1, 20)])
def test_numbers_older_than_three_scrapes_are_ignored(age: float, limit_then: int) -> None:
    limit = AdaptiveLimit(initial=10, scrape_interval=5.0)
    limit.scraped(EngineLoad(waiting=3, kv_cache_usage=0.5, at=100.0))
    for _ in range(10):
        limit.first_token(0.1, 10, 100.0 + age)
    assert limit.limit == limit_then


@pytest.mark.parametrize("bad", [{"least": 0}, {"least": 5, "most": 4}, {"scrape_interval": 0.0}])
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="are needed"):
        AdaptiveLimit(**bad)  # type: ignore[arg-type]  # on purpose


steps = st.one_of(
    st.tuples(st.just("token"), st.floats(0, 100), st.integers(0, 2000)),
    st.tuples(st.just("refused"), st.floats(0, 100), st.just(0)),
    st.tuples(st.just("scraped"), st.floats(0, 100), st.integers(0, 50)),
)


@given(st.lists(steps, max_size=300), st.integers(1, 20), st.integers(0, 100), st.integers(0, 200))
def test_the_limit_and_the_memory_stay_within_bounds(
    events: list[tuple[str, float, int]], least: int, room: int, initial: int
) -> None:
    limit = AdaptiveLimit(initial=initial, least=least, most=least + room)
    now = 0.0
    for kind, value, count in events:
        now += 0.5
        if kind == "token":
            limit.first_token(value, count, now)
        elif kind == "refused":
            limit.refused(now - value, now)
        else:
            limit.scraped(EngineLoad(waiting=count, kv_cache_usage=value / 100, at=now - value))
        assert least <= limit.limit <= least + room
        assert len(limit._ttfts) <= 32
