import asyncio

from lexora_router.workers.frames import Header
from lexora_router.workers.hub import MOST_WAITING, Hub, Part, packed, unpacked


class Worker:
    """A peer that remembers what it was sent."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 100 + number
        self.kept = b""
        self.adopted: dict[int, bytes] = {}
        self.sent: list[tuple[Header, bytes]] = []

    def send(self, header: Header, body: bytes = b"") -> None:
        self.sent.append((header, body))

    @property
    def questions(self) -> list[tuple[Header, bytes]]:
        return [(header, body) for header, body in self.sent if header["kind"] == "question"]

    @property
    def given(self) -> list[bytes]:
        """Counts of others that it was given."""
        return [body for header, body in self.sent if header["kind"] == "adopt"]


def hub_of(*workers: Worker) -> Hub:
    hub = Hub()
    for worker in workers:
        hub.join(worker)
    return hub


async def asked(hub: Hub, *, but: Worker | None = None, seconds: float = 5.0) -> asyncio.Task[list[Part]]:
    task = asyncio.create_task(hub.ask("stats", b"?", seconds, but=but))
    await asyncio.sleep(0)
    return task


async def test_all_others_are_asked_and_their_answers_are_put_together() -> None:
    first, second, third = workers = [Worker(1), Worker(2), Worker(3)]
    hub = hub_of(*workers)
    asking = await asked(hub, but=first)
    assert not first.questions
    for worker in (third, second):
        ((header, body),) = worker.questions
        assert (header["name"], body) == ("stats", b"?")
        hub.answer(header["id"], b"%d" % worker.number)
    assert await asking == [Part(2, 102, b"2"), Part(3, 103, b"3")]


async def test_one_that_does_not_answer_or_ends_is_among_the_answers_with_none() -> None:
    silent, dying = workers = [Worker(1), Worker(2)]
    hub = hub_of(*workers)
    asking = await asked(hub, seconds=0.02)
    hub.leave(dying)
    assert await asking == [Part(1, 101, None), Part(2, 102, None)]
    hub.answer(silent.questions[0][0]["id"], b"late")
    hub.answer(silent.questions[0][0]["id"], b"twice")


async def test_few_questions_wait_for_one_that_answers_nothing() -> None:
    silent = Worker(1)
    hub = hub_of(silent)
    asking = [await asked(hub) for _ in range(MOST_WAITING + 3)]
    await asyncio.wait(asking[-3:])
    assert len(silent.questions) == MOST_WAITING
    hub.leave(silent)
    await asyncio.wait(asking)


async def test_counts_of_one_that_ends_go_to_another_and_on_from_there() -> None:
    first, second, third = workers = [Worker(1), Worker(2), Worker(3)]
    hub = hub_of(*workers)
    first.kept = b"first"
    hub.leave(first)
    assert (second.given, third.given) == ([b"first"], [])
    (number,) = second.adopted
    hub.keep(second, number - 1, b"second alone")  # sent before it had them
    hub.leave(second)
    assert sorted(third.given) == [b"first", b"second alone"]
    hub.keep(third, max(third.adopted), b"all")
    hub.leave(third)
    late = Worker(4)
    hub.join(late)
    assert late.given == [b"all"]


def test_answers_travel_as_one_body() -> None:
    parts = [Part(1, 11, b"one"), Part(2, 12, None), Part(3, 13, b""), Part(4, 14, b"four")]
    assert unpacked(*packed(parts)) == parts


def test_one_of_those_that_serve_is_the_first() -> None:
    workers = [Worker(1), Worker(2), Worker(3)]
    hub = hub_of(*workers)

    def firsts() -> list[int]:
        return [worker.number for worker in workers if {"kind": "first"} in [header for header, _ in worker.sent]]

    assert firsts() == [1]
    hub.leave(workers[2])
    hub.join(Worker(4))
    assert firsts() == [1]
    hub.leave(workers[0])
    assert firsts() == [1, 2]
