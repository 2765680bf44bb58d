import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from tests.support.issuer import SigningKey
from tests.unit.router.access.jwt.test_key_set import parsed

from lexora_router.access.jwt import key_cache
from lexora_router.access.jwt.key_cache import MAX_MISSING, CannotRead, KeyCache
from lexora_router.access.jwt.key_set import KeySet
from lexora_router.errors import AccessUnavailable

ALGORITHM = "ES256"
OLD, NEW = SigningKey(ALGORITHM, "old"), SigningKey(ALGORITHM, "new")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a cache has no event for it
            await asyncio.sleep(0.002)


class Source:
    """Keys that can be replaced or taken away; counts how often they are read."""

    def __init__(self) -> None:
        self.keys: KeySet | None = parsed(OLD.jwk())
        self.reads = 0
        self.at: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self) -> KeySet | None:
        self.reads += 1
        self.at.append(asyncio.get_running_loop().time())
        found = self.keys
        await self.gate.wait()
        if found is None:
            raise CannotRead("gone")
        return found


@asynccontextmanager
async def started(source: Source, **settings: float) -> AsyncIterator[KeyCache]:
    usual = {"refresh": 600.0, "cooldown": 0.0, "max_stale": 600.0} | settings
    cache = KeyCache("issuer", source.read, clock=asyncio.get_running_loop().time, **usual)
    cache.start()
    try:
        yield cache
    finally:
        await cache.stop()


async def test_the_first_call_waits_for_the_first_keys_and_asks_no_second_time() -> None:
    source = Source()
    async with started(source) as cache:
        assert cache.fitting("old", ALGORITHM) == ()
        assert [key.id for key in await cache.find("old", ALGORITHM)] == ["old"]
        assert source.reads == 1


async def test_many_calls_with_a_new_key_ask_once_and_all_find_it() -> None:
    source = Source()
    async with started(source) as cache:
        await cache.find("old", ALGORITHM)
        source.keys = parsed(OLD.jwk(), NEW.jwk())
        found = await asyncio.gather(*(cache.find("new", ALGORITHM) for _ in range(100)))
        assert all(key.id == "new" for (key,) in found)
        assert source.reads == 2


async def test_a_key_that_came_while_the_keys_were_read_is_looked_for_once_more() -> None:
    source = Source()
    source.gate.clear()
    async with started(source) as cache:
        waiting = asyncio.create_task(cache.find("new", ALGORITHM))
        await until(lambda: source.reads)
        source.keys = parsed(OLD.jwk(), NEW.jwk())
        source.gate.set()
        assert [key.id for key in await waiting] == ["new"]


async def test_unknown_keys_do_not_make_the_issuer_be_asked_more_than_once_per_cooldown() -> None:
    source = Source()
    async with started(source, cooldown=0.2) as cache:
        await cache.find("old", ALGORITHM)
        found = await asyncio.gather(*(cache.find(f"random-{number}", ALGORITHM) for number in range(200)))
        assert found == [()] * 200
        # The guesses have waited for it; on a slow machine some began after the second reading, and waited for the third.
        assert 2 <= source.reads < 10
        assert min(late - early for early, late in pairwise(source.at)) >= 0.199
        # Those are known to be missing: they neither ask nor wait. And nothing was evicted for them.
        reads = source.reads
        assert await cache.find("random-7", ALGORITHM) == ()
        assert source.reads == reads
        assert cache.fitting("old", ALGORITHM)


async def test_a_real_new_key_among_random_ones_is_found() -> None:
    source = Source()
    async with started(source, cooldown=0.1) as cache:
        await cache.find("old", ALGORITHM)
        noise = [asyncio.create_task(cache.find(f"random-{number}", ALGORITHM)) for number in range(50)]
        await asyncio.sleep(0)
        source.keys = parsed(NEW.jwk())
        assert await cache.find("new", ALGORITHM)
        await asyncio.gather(*noise)


async def test_a_flood_from_one_address_takes_no_place_that_another_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_cache, "MAX_WAITING", 8)
    source = Source()
    async with started(source, cooldown=0.2) as cache:
        await cache.find("old", ALGORITHM)
        flood = [asyncio.create_task(cache.find(f"random-{number}", ALGORITHM, "192.0.2.1")) for number in range(20)]
        await asyncio.sleep(0)
        assert cache.fitting("old", ALGORITHM)  # known keys wait for nothing
        source.keys = parsed(OLD.jwk(), NEW.jwk())
        found = await asyncio.gather(*(cache.find("new", ALGORITHM, f"198.51.100.{number}") for number in range(3)))
        assert [key.id for (key,) in found] == ["new"] * 3
        ends = await asyncio.gather(*flood, return_exceptions=True)
        refused = [end for end in ends if isinstance(end, AccessUnavailable)]
        assert (len(refused), ends.count(())) == (12 + 3, 8 - 3)
        assert cache._places.taken == 0


async def test_more_than_a_number_of_calls_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_cache, "MAX_WAITING", 2)
    source = Source()
    async with started(source, cooldown=600) as cache:
        await cache.find("old", ALGORITHM)
        waiting = [asyncio.create_task(cache.find(name, ALGORITHM)) for name in ("a", "b")]
        await asyncio.sleep(0)
        with pytest.raises(AccessUnavailable) as refused:
            await cache.find("c", ALGORITHM)
        assert 1 <= refused.value.retry_after <= 600
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_memory_of_missing_keys_is_bounded() -> None:
    source = Source()
    async with started(source) as cache:
        for number in range(MAX_MISSING + 50):
            cache._note_missing(str(number))
        assert len(cache._missing) == MAX_MISSING


async def test_keys_are_kept_over_an_outage_and_what_is_unknown_meanwhile_is_unavailable() -> None:
    source = Source()
    async with started(source, refresh=0.01) as cache:
        await cache.find("old", ALGORITHM)
        source.keys = None
        reads = source.reads
        await until(lambda: source.reads >= reads + 2)
        assert cache.fitting("old", ALGORITHM)
        with pytest.raises(AccessUnavailable):
            await cache.find("new", ALGORITHM)
        source.keys = parsed(NEW.jwk())
        await until(lambda: cache.fitting("new", ALGORITHM))
        assert not cache.fitting("old", ALGORITHM)


async def test_without_any_keys_every_token_is_unavailable_and_none_is_refused() -> None:
    source = Source()
    source.keys = None
    async with started(source, cooldown=600) as cache:
        for _ in range(3):
            with pytest.raises(AccessUnavailable, match="keys of its issuer cannot be read"):
                await cache.find("old", ALGORITHM)
        assert source.reads == 1


async def test_keys_that_are_older_than_max_stale_are_used_no_more() -> None:
    source = Source()
    async with started(source, refresh=0.01, max_stale=0.5) as cache:
        await cache.find("old", ALGORITHM)
        source.keys = None
        await until(lambda: not cache.fitting("old", ALGORITHM))
        with pytest.raises(AccessUnavailable):
            await cache.find("old", ALGORITHM)


async def test_the_end_does_not_cancel_the_calls_that_wait() -> None:
    source = Source()
    source.gate.clear()
    async with started(source) as cache:
        waiting = asyncio.create_task(cache.find("old", ALGORITHM))
        await until(lambda: source.reads)
        await cache.stop()
        with pytest.raises(AccessUnavailable):
            await waiting


async def test_a_bug_in_reading_does_not_end_it() -> None:
    source = Source()

    async def read() -> KeySet | None:
        source.reads += 1
        if source.reads == 1:
            raise RuntimeError("bug")
        return source.keys

    source.read = read  # type: ignore[method-assign]
    async with started(source, refresh=0.01) as cache:
        await until(lambda: cache.fitting("old", ALGORITHM))
