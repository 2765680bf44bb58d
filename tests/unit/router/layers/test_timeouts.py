import asyncio

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import HANG, HEAD, Client, Frames, Scripted, Step, make_call, make_target

from lexora_contract.answer import Reply
from lexora_router.call import Call, Timeouts
from lexora_router.errors import UpstreamBroken, UpstreamTimeout
from lexora_router.layers.timeouts import EngineTimeouts

A = Frames(b"a")
STREAMING: list[Step] = [HEAD, A]
# First token 10 s, idle 5 s, total 100 s.


def call_with(timeouts: Timeouts | None = None) -> Call:
    target = make_target() if timeouts is None else make_target(timeouts=timeouts)
    call = make_call(target=target)
    call.receipt.backend = "main"
    return call


CHATTY: list[Step] = [HEAD, *(step for _ in range(100) for step in (4.0, A))]


async def attempt(*steps: Step, client: Client | None = None, timeouts: Timeouts | None = None) -> Scripted:
    inner = Scripted(*steps)
    await EngineTimeouts(inner, clock=now)(call_with(timeouts), client or Client())
    return inner


async def phase_and_seconds(*steps: Step, call: Call | None = None, timeouts: Timeouts | None = None) -> tuple[str, float]:
    """The phase, and when it ended: never early, and late by a thirtieth at most."""
    start, call = now(), call or call_with(timeouts)
    with pytest.raises(UpstreamTimeout, match="backend `main`") as raised:
        await EngineTimeouts(Scripted(*steps), clock=now)(call, Client())
    return raised.value.phase, now() - start


def about(seconds: float) -> object:
    """From so many seconds to a thirtieth more."""
    return pytest.approx(seconds * 1.016, rel=0.017)


@jumping
async def test_an_engine_that_is_quick_enough_passes() -> None:
    client = Client()
    await attempt(9.0, HEAD, A, 4.0, A, 4.0, A, 4.0, client=client)
    assert client.events == [HEAD, A, A, A]


@jumping
async def test_silence_before_the_first_token() -> None:
    assert await phase_and_seconds(HANG) == ("first token", about(10))


@jumping
async def test_silence_between_tokens_is_measured_from_the_last_one() -> None:
    assert await phase_and_seconds(9.0, HEAD, A, 4.0, A, HANG) == ("idle", about(18))


@jumping
async def test_an_idle_timeout_longer_than_the_first_token_s() -> None:
    timeouts = Timeouts(first_token=2.0, idle=50.0, total=1000.0)
    assert await phase_and_seconds(1.0, HEAD, A, 40.0, A, HANG, timeouts=timeouts) == ("idle", about(91))


@jumping
async def test_the_total_counts_although_the_engine_is_never_silent() -> None:
    assert await phase_and_seconds(*CHATTY) == ("total", about(100))


@jumping
async def test_the_total_counts_before_the_first_token_too() -> None:
    assert await phase_and_seconds(HANG, timeouts=Timeouts(first_token=10.0, idle=5.0, total=3.0)) == ("total", about(3))


def slow(call: Call, *pauses: tuple[float, float]) -> Call:
    """The call of a client that takes nothing from so many seconds on until so many."""
    loop = asyncio.get_running_loop()
    for begin, end in pauses:
        loop.call_later(begin, call.flow.pause)
        loop.call_later(end, call.flow.resume)
    return call


@jumping
async def test_a_client_that_reads_slowly_is_not_the_engine_s_silence() -> None:
    call, client = slow(call_with(), (1.0, 31.0), (31.5, 61.5)), Client()
    await EngineTimeouts(Scripted(HEAD, A, 31.2, A, 31.0, A), clock=now)(call, client)
    assert len(client.events) == 4


@jumping
async def test_the_silence_after_a_slow_client_counts_from_when_it_reads_again() -> None:
    assert await phase_and_seconds(HEAD, A, HANG, call=slow(call_with(), (1.0, 30.0))) == ("idle", about(35))
    assert await phase_and_seconds(HEAD, A, HANG, call=slow(call_with(), (1.0, 4.0))) == ("idle", about(9))


@jumping
async def test_a_client_that_never_reads_is_ended_by_the_total() -> None:
    assert await phase_and_seconds(HEAD, A, HANG, call=slow(call_with(), (0.0, 1e6))) == ("total", about(100))


@pytest.mark.parametrize(
    ("steps", "gaps"),
    [
        ([HEAD, A, 4.0, A, 0.5, A], [4.0, 0.5]),
        ([HEAD, 3.0, A], []),
        ([Reply(HEAD, b"{}"), 3.0], []),
    ],
    ids=["pieces", "the first piece has none before it", "an answer in one piece"],
)
@jumping
async def test_the_gaps_between_pieces_are_told(steps: list[Step], gaps: list[float]) -> None:
    told: list[tuple[float, float]] = []
    layer = EngineTimeouts(Scripted(*steps), clock=now, gaps=lambda seconds, at: told.append((seconds, at)))
    await layer(call_with(), Client())
    assert [seconds for seconds, _ in told] == pytest.approx(gaps)
    assert not told or told[-1][1] == pytest.approx(now(), abs=3.0)


@jumping
async def test_no_gap_lies_between_two_attempts_nor_behind_a_failure() -> None:
    told: list[float] = []
    first, second = Scripted(HEAD, A, 2.0, UpstreamBroken("x")), Scripted(HEAD, A, 1.0, A)
    with pytest.raises(UpstreamBroken):
        await EngineTimeouts(first, clock=now, gaps=lambda seconds, _: told.append(seconds))(call_with(), Client())
    await EngineTimeouts(second, clock=now, gaps=lambda seconds, _: told.append(seconds))(call_with(), Client())
    assert told == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([HANG], r"sent nothing for 10 s \(first_token_timeout\)"),
        ([HEAD, HANG], r"fell silent for 5 s in mid-answer \(idle_timeout\)"),
        (CHATTY, r"not done within 100 s \(total_timeout\)"),
    ],
)
@jumping
async def test_the_message_names_the_key_to_turn(steps: list[Step], words: str) -> None:
    with pytest.raises(UpstreamTimeout, match=words):
        await attempt(*steps)


@pytest.mark.parametrize("error", [UpstreamBroken("gone"), TimeoutError("somebody else's")])
@pytest.mark.parametrize("before", [[], STREAMING], ids=["before the first event", "after it"])
@jumping
async def test_failures_below_go_on_and_leave_no_timer(error: Exception, before: list[Step]) -> None:
    with pytest.raises(type(error)) as raised:
        await attempt(*before, error)
    assert raised.value is error
    await asyncio.sleep(1000)  # a timer left behind would end this


@pytest.mark.parametrize("before", [[], STREAMING], ids=["while waiting", "while streaming"])
@jumping
async def test_a_client_that_leaves_is_no_timeout(before: list[Step]) -> None:
    inner, client = Scripted(*before, HANG), Client()
    task = asyncio.create_task(EngineTimeouts(inner, clock=now)(call_with(), client))
    await inner.begun()
    await client.got(len(before))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (inner.cancelled, inner.running) == (1, 0)


@jumping
async def test_the_attempt_is_cancelled_once_when_it_times_out() -> None:
    inner = Scripted(HANG)
    with pytest.raises(UpstreamTimeout):
        await EngineTimeouts(inner, clock=now)(call_with(), Client())
    assert (inner.cancelled, inner.running) == (1, 0)
    await asyncio.sleep(1000)  # nothing else is cancelled afterwards


class Dripping:
    """An engine whose whole answer comes in bytes, so many at each of the instants; then it hangs."""

    def __init__(self, *gaps: float) -> None:
        self.gaps = gaps

    async def __call__(self, call: Call, emit: object) -> None:
        for gap in self.gaps:
            await asyncio.sleep(gap)
            call.receipt.body_bytes += 1
            call.receipt.heard_at = now()
        await asyncio.sleep(1e6)


@pytest.mark.parametrize(
    ("gaps", "phase", "seconds"),
    [
        ((), "first token", 10),
        ((1.0,), "idle", 6),
        ((9.0, 4.0, 4.0), "idle", 22),
        ((4.0,) * 40, "total", 100),
    ],
)
@jumping
async def test_bytes_of_a_whole_answer_are_no_silence(gaps: tuple[float, ...], phase: str, seconds: float) -> None:
    call, start = call_with(), now()
    call.stream = False
    with pytest.raises(UpstreamTimeout) as raised:
        await EngineTimeouts(Dripping(*gaps), clock=now)(call, Client())
    assert raised.value.phase == phase
    assert seconds <= now() - start <= seconds + 5, "silence is seen within twice its bound"


@pytest.mark.parametrize(("comments", "words"), [(1, "sent 1 comment, but no token within 10 s"), (37, "37 comments, but")])
@jumping
async def test_comments_are_no_token(comments: int, words: str) -> None:
    async def engine(call: Call, _: object) -> None:
        for _number in range(comments):
            await asyncio.sleep(0.1)
            call.receipt.comments += 1
        await asyncio.sleep(1e6)

    with pytest.raises(UpstreamTimeout, match=words) as raised:
        await EngineTimeouts(engine, clock=now)(call_with(), Client())
    assert raised.value.phase == "first token"
