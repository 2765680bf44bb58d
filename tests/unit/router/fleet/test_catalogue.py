import asyncio
import dataclasses
import json
from collections.abc import Mapping
from typing import Any, cast

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.engines.engine import make_backend
from yarl import URL

from lexora_router.engines.transport import ConnectError, Transport
from lexora_router.fleet import catalogue as module
from lexora_router.fleet.backend import Backend
from lexora_router.fleet.catalogue import Catalogue

TTL, TIMEOUT = 30.0, 3.0


def listing(*models: str) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": model} for model in models]}).encode()


class FakeTransport:
    """Answers each GET with `answer` after `delay` seconds."""

    def __init__(self, answer: Any, delay: float = 0.1) -> None:
        self.answer = answer
        self.delay = delay
        self.asked: list[tuple[str, dict[str, str]]] = []

    def apart(self) -> "FakeTransport":
        return self

    def close(self) -> None:
        pass

    async def get(self, url: URL, headers: Mapping[str, str], *, limit: int) -> tuple[int, bytes]:
        self.asked.append((str(url), dict(headers)))
        await asyncio.sleep(self.delay)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if isinstance(self.answer, tuple) else (200, self.answer)


def catalogue_of(**transports: FakeTransport) -> Catalogue:
    backends = {name: dataclasses.replace(backend_of(fake), name=name) for name, fake in transports.items()}
    return Catalogue(backends, ttl=TTL, timeout=TIMEOUT, clock=now)


def backend_of(fake: FakeTransport, **fields: Any) -> Backend:
    backend = make_backend("", **({"urls": ["http://e:1"], "api_key": "k"} | fields))
    return dataclasses.replace(backend, transport=cast("Transport", fake))


def names(catalogue: Catalogue, backend: str = "main") -> list[str]:
    return list(catalogue.listed(backend))


@jumping
async def test_what_a_backend_lists_is_known_with_its_own_json() -> None:
    entry = b'{"id":"m","max_model_len":4096,"extra":9007199254740993}'
    fake = FakeTransport(b'{"data":[' + entry + b"]}")
    catalogue = catalogue_of(main=fake)
    assert names(catalogue) == []
    await catalogue.fresh()
    [model] = catalogue.listed("main").values()
    assert (model.id, model.max_model_len, model.entry) == ("m", 4096, entry)
    assert fake.asked == [("http://e:1/v1/models", {"authorization": "Bearer k"})]


@jumping
async def test_a_listing_is_asked_for_again_when_it_is_old() -> None:
    fake = FakeTransport(listing("a"))
    catalogue = catalogue_of(main=fake)
    await catalogue.fresh()
    await asyncio.sleep(TTL - 1)
    await catalogue.fresh()
    assert len(fake.asked) == 1
    await catalogue.fresh(max_age=2.0)
    assert len(fake.asked) == 2
    fake.answer = listing("b")
    await asyncio.sleep(TTL + 1)
    await catalogue.fresh()
    assert names(catalogue) == ["b"]


@jumping
async def test_a_hung_backend_delays_no_other_and_nobody_for_longer_than_its_limit() -> None:
    hung, quick = FakeTransport(listing("h"), delay=1e6), FakeTransport(listing("q"))
    catalogue = catalogue_of(hung=hung, quick=quick)
    start = now()
    waiting = asyncio.create_task(catalogue.fresh())
    await asyncio.sleep(0.2)
    assert names(catalogue, "quick") == ["q"]
    await waiting
    assert now() - start == pytest.approx(TIMEOUT)
    assert names(catalogue, "hung") == []
    await catalogue.fresh()
    assert now() - start == pytest.approx(TIMEOUT), "asked again at once"


@pytest.mark.parametrize(
    "answer",
    [
        ConnectError("refused"),
        (500, b"{}"),
        (401, b'{"error":"Unauthorized"}'),
        b"<html>",
        b"",
        b'{"data":7}',
        b'{"models":[]}',
        b'{"data":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
        b"\xff",
    ],
)
@jumping
async def test_a_backend_that_fails_keeps_its_last_listing(answer: Any) -> None:
    fake = FakeTransport(listing("a"))
    catalogue = catalogue_of(main=fake)
    await catalogue.fresh()
    fake.answer = answer
    await asyncio.sleep(TTL + 1)
    await catalogue.fresh()
    assert len(fake.asked) == 2
    assert names(catalogue) == ["a"]


@jumping
async def test_many_who_wait_make_one_request() -> None:
    fake = FakeTransport(listing("a"))
    catalogue = catalogue_of(main=fake)
    await asyncio.gather(*(catalogue.fresh() for _ in range(50)))
    assert len(fake.asked) == 1


@jumping
async def test_one_who_leaves_does_not_spoil_it_for_the_others() -> None:
    catalogue = catalogue_of(main=FakeTransport(listing("a")))
    leaves, stays = (asyncio.create_task(catalogue.fresh()) for _ in range(2))
    await asyncio.sleep(0.01)
    leaves.cancel()
    await stays
    assert leaves.cancelled()
    assert names(catalogue) == ["a"]


@jumping
async def test_keep_fresh_asks_before_a_listing_is_old_until_cancelled() -> None:
    fake = FakeTransport(listing("a"))
    catalogue = catalogue_of(main=fake)
    keeper = asyncio.create_task(catalogue.keep_fresh())
    await asyncio.sleep(10 * TTL)
    assert 10 <= len(fake.asked) <= 21
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)
    await catalogue.close()


@jumping
async def test_close_ends_a_round_under_way() -> None:
    catalogue = catalogue_of(main=FakeTransport(listing("a"), delay=1.0))
    waiting = asyncio.create_task(catalogue.fresh())
    await asyncio.sleep(0.1)
    await catalogue.close()
    await asyncio.gather(waiting, return_exceptions=True)
    assert names(catalogue) == []


@jumping
async def test_of_several_endpoints_one_that_is_well_is_asked() -> None:
    fake = FakeTransport(listing("a"))
    backend = backend_of(fake, urls=["http://e:1", "http://e:2"])
    backend.endpoints[0].condition.healthy = False
    catalogue = Catalogue({"main": backend}, ttl=TTL, timeout=TIMEOUT, clock=now)
    await catalogue.fresh()
    assert fake.asked[0][0] == "http://e:2/v1/models"


@jumping
async def test_odd_entries_are_left_out() -> None:
    fake = FakeTransport(
        b'{"data":[{"id":"a"},{"name":"no id"},7,{"id":7},{"id":"a","second":true},{"id":"b","max_model_len":null}]}'
    )
    catalogue = catalogue_of(main=fake)
    await catalogue.fresh()
    assert {model.id: model.entry for model in catalogue.listed("main").values()} == {
        "a": b'{"id":"a"}',
        "b": b'{"id":"b","max_model_len":null}',
    }


@jumping
async def test_a_listing_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LISTED_MODELS", 10)
    catalogue = catalogue_of(main=FakeTransport(listing(*(f"m{i}" for i in range(50)))))
    await catalogue.fresh()
    assert len(names(catalogue)) == 10


@jumping
async def test_backends_are_found_by_what_they_list_now() -> None:
    first, second = FakeTransport(listing("a", "both")), FakeTransport(listing("both"))
    catalogue = catalogue_of(first=first, second=second)
    assert catalogue.listers("both") == ()
    await catalogue.fresh()
    assert [list(catalogue.listers(model)) for model in ("a", "both", "new")] == [["first"], ["first", "second"], []]
    first.answer = listing("both", "new")
    await asyncio.sleep(TTL + 1)
    await catalogue.fresh()
    assert [list(catalogue.listers(model)) for model in ("a", "both", "new")] == [[], ["first", "second"], ["first"]]
    successor = catalogue_of(second=second)
    successor.adopt(catalogue)
    assert list(successor.listers("both")) == ["second"]
