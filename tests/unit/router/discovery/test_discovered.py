import asyncio
from collections.abc import Sequence

from structlog.testing import capture_logs
from tests.support.clock import jumping, now

from lexora_router.config.discover import DiscoverConfig
from lexora_router.discovery.discovered import Discovered
from lexora_router.discovery.source import Found, LookFailed

SETTINGS = DiscoverConfig(file="engines.json", min_interval=5.0, max_interval=60.0)


class Scripted:
    """A source whose looks end as told; when there is nothing more it waits for ever."""

    what = "file engines.json"

    def __init__(self, script: Sequence[Found | Exception]) -> None:
        self._script = list(script)
        self.looked: list[float] = []
        self.closed = False

    async def look(self) -> Found:
        self.looked.append(now())
        if not self._script:
            await asyncio.Event().wait()
        result = self._script.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    async def close(self) -> None:
        self.closed = True


def followed(*script: Found | Exception, before: tuple[str, ...] = ()) -> tuple[Discovered, Scripted, list[tuple[str, ...]]]:
    source = Scripted(script)
    discovered = Discovered("main", SETTINGS, source, before, now)
    seen: list[tuple[str, ...]] = []
    discovered.changed = lambda: seen.append(discovered.addresses)
    discovered.start()
    return discovered, source, seen


@jumping
async def test_what_was_found_last_holds_however_many_looks_fail() -> None:
    discovered, source, seen = followed(
        Found(("a:1",), 5.0), LookFailed("SERVFAIL"), LookFailed("silent"), LookFailed("silent"), Found(("a:1", "b:2"), 5.0)
    )
    assert discovered.in_words() == "file engines.json is being looked up for the first time"
    await discovered.first_look()
    assert (discovered.problem, discovered.succeeded_at) == ("", 1000.0)
    await asyncio.sleep(5 + 5 + 10 + 0.1)
    assert (discovered.addresses, discovered.problem, discovered.failures) == (("a:1",), "silent", 3)
    assert discovered.succeeded_at == 1000.0
    await asyncio.sleep(30)
    assert source.looked == [1000, 1005, 1010, 1020, 1040, 1045]  # twice as long after each failure, and then as before
    assert seen == [("a:1",), ("a:1", "b:2")], "only changes are handed on"
    assert (discovered.problem, discovered.failures) == ("", 3)
    await discovered.stop()
    assert source.closed


@jumping
async def test_the_first_look_is_over_also_when_it_has_failed() -> None:
    discovered, _, seen = followed(LookFailed("no such name"))
    await discovered.first_look()
    await asyncio.sleep(1.5)
    assert discovered.in_words() == "file engines.json was looked up 1.5 s ago: no such name"
    assert seen == [()], "it is known now that nothing is known"
    await discovered.stop()


@jumping
async def test_a_source_that_says_when_to_look_again_is_heard() -> None:
    discovered, source, _ = followed(LookFailed("broken", 0.5), LookFailed("busy", 7.0), Found((), 3.0))
    await asyncio.sleep(20)
    assert source.looked == [1000, 1000.5, 1007.5, 1010.5]
    assert discovered.in_words() == "file engines.json was looked up 12.5 s ago: it has no addresses"
    await discovered.stop()


@jumping
async def test_a_source_that_replaces_another_begins_with_its_addresses() -> None:
    discovered, _, seen = followed(LookFailed("not yet"), Found(("b:2",), 5.0), before=("a:1",))
    assert discovered.addresses == ("a:1",)
    await discovered.first_look()
    assert discovered.addresses == ("a:1",)
    await asyncio.sleep(6)
    assert seen == [("a:1",), ("b:2",)]
    await discovered.stop()


@jumping
async def test_bugs_in_a_look_or_behind_a_change_do_not_end_it() -> None:
    discovered, *_ = followed(ZeroDivisionError(), Found(("a:1",), 5.0), Found(("b:2",), 5.0))

    def broken() -> None:
        raise ZeroDivisionError

    discovered.changed = broken
    with capture_logs() as lines:
        await asyncio.sleep(12)
    assert discovered.addresses == ("b:2",)
    assert sum(line["event"] == "bug" for line in lines) == 4
    await discovered.stop()


@jumping
async def test_each_change_is_logged_once() -> None:
    many = tuple(f"10.0.0.{n}:1" for n in range(30))
    with capture_logs() as lines:
        discovered, *_ = followed(
            Found(many, 5.0, left_out=2), LookFailed("gone", 1.0), LookFailed("gone", 1.0), Found(("a:1",), 5.0)
        )
        await asyncio.sleep(12)
        await discovered.stop()
    events = [(line["event"], line.get("problem"), line.get("endpoints")) for line in lines]
    assert events == [
        ("discovery_problem", "only 30 of its 32 addresses are used", None),
        ("endpoints_discovered", None, 30),
        ("discovery_problem", "gone", None),
        ("discovery_works", None, None),
        ("endpoints_discovered", None, 1),
    ]
    assert lines[1]["added"][-1] == "and 10 more"
    assert lines[4]["gone"][-1] == "and 10 more"
