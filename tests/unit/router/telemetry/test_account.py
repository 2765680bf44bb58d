import asyncio

import pytest
import structlog
from tests.unit.router.support import CHAT, Client, make_call, make_target

from lexora_contract.answer import Hop, Receipt, Usage
from lexora_router.errors import (
    DeadlineExceeded,
    Draining,
    NoHealthyEndpoint,
    QueueFull,
    RateLimited,
    RequestQuarantined,
    RouterError,
    UpstreamBroken,
    UpstreamRefused,
)
from lexora_router.layers.fallback import Fallback
from lexora_router.telemetry.account import (
    Account,
    CallRecord,
    reason,
    rejection,
    retries,
    straight,
    wasted,
)

REJECTIONS = {
    "rate_limit": RateLimited("x", 1.0, "user:a"),
    "queue_full": QueueFull("x", 1.0),
    "queue_timeout": QueueFull("x", 1.0, "queue_timeout"),
    "deadline": QueueFull("x", 1.0, "deadline"),
    "no_healthy_endpoint": NoHealthyEndpoint("x"),
    "quarantined": RequestQuarantined("x", 1.0),
    "draining": Draining("x"),
}


@pytest.mark.parametrize(("reason", "error"), REJECTIONS.items(), ids=REJECTIONS.keys())
def test_what_the_router_refuses_has_a_reason(reason: str, error: RouterError) -> None:
    assert rejection(error) == reason


@pytest.mark.parametrize(
    "error",
    [
        None,
        DeadlineExceeded("x"),
        UpstreamBroken("x"),
        UpstreamRefused(429, "", b""),
        ZeroDivisionError(),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
def test_everything_else_is_no_rejection(error: BaseException | None) -> None:
    assert rejection(error) == ""


async def test_hops_are_those_that_the_layer_has_made() -> None:
    targets = tuple(make_target(backend=name) for name in ("main", "a-b.c_", "d-"))
    call = make_call()
    call.targets = targets

    async def fails(call: object, sink: object) -> None:
        raise UpstreamBroken("x")

    with pytest.raises(UpstreamBroken):
        await Fallback(fails, on_rate_limit=False)(call, Client())
    assert list(call.receipt.hops) == [Hop("main", "a-b.c_", "UPSTREAM_BROKEN"), Hop("a-b.c_", "d-", "UPSTREAM_BROKEN")]


@pytest.mark.parametrize(("attempts", "expected"), [(0, 0), (1, 0), (3, 2)])
def test_the_first_attempt_is_no_retry(attempts: int, expected: int) -> None:
    assert retries(Receipt(attempts=attempts)) == expected


@pytest.mark.parametrize(
    ("receipt", "straight_on"),
    [
        (Receipt(attempts=0), True),
        (Receipt(attempts=1), True),
        (Receipt(attempts=2), False),
        (Receipt(attempts=1, resumed="text"), False),
        (Receipt(attempts=1, hops=(Hop("a", "b", "X"),)), False),
    ],
)
def test_a_call_that_took_a_detour_did_not_go_straight(receipt: Receipt, straight_on: bool) -> None:
    assert straight(receipt, None) is straight_on
    assert not straight(receipt, UpstreamBroken("x"))


@pytest.mark.parametrize(
    ("error", "word"),
    [(None, ""), (asyncio.CancelledError(), ""), (UpstreamBroken("x"), "UPSTREAM_BROKEN"), (ZeroDivisionError(), "INTERNAL")],
    ids=repr,
)
def test_the_error_in_one_word(error: BaseException | None, word: str) -> None:
    assert reason(error) == word


def test_a_call_that_was_refused_before_it_had_a_path() -> None:
    assert [CallRecord(make_call(path=path), 400, None, "m").path for path in (CHAT, "")] == [CHAT, "other"]


GONE = asyncio.CancelledError()


@pytest.mark.parametrize(
    ("receipt", "status", "error", "found"),
    [
        (Receipt(usage=Usage(3, 7)), 200, None, {}),
        (Receipt(), 502, UpstreamBroken("x"), {}),
        (Receipt(events=5), 502, UpstreamBroken("x"), {"failed": 5}),
        (Receipt(events=5), 499, GONE, {"client_left": 5}),
        (Receipt(events=5, usage=Usage(3, 7)), 499, GONE, {"client_left": 7}),
        (Receipt(events=5, usage=Usage(3, 1)), 502, UpstreamBroken("x"), {"failed": 5}),
        (Receipt(usage=Usage(3, 7), lost_tokens=2), 200, None, {"failed_attempt": 2}),
        (Receipt(usage=Usage(3, 7), lost_tokens=2), 499, GONE, {"failed_attempt": 2, "client_left": 7}),
        (Receipt(events=9, lost_tokens=2), 502, UpstreamBroken("x"), {"failed_attempt": 2, "failed": 7}),
    ],
)
def test_no_token_is_wasted_twice(receipt: Receipt, status: int, error: BaseException | None, found: dict[str, int]) -> None:
    assert wasted(receipt, status, error) == found


def test_all_books_get_one_record_of_a_call() -> None:
    class Kept:
        def __init__(self) -> None:
            self.begun: list[object] = []
            self.records: list[CallRecord] = []

        def begin(self, call: object) -> None:
            self.begun.append(call)

        def end(self, record: CallRecord) -> None:
            self.records.append(record)

    books, call, error = (Kept(), Kept()), make_call(started=1.0), QueueFull("x", 1.0, "deadline")
    receipt = call.receipt
    receipt.backend, receipt.endpoint, receipt.attempts, receipt.finished_at = "b", "http://e:1", 3, 3.5
    receipt.hops, receipt.lost_tokens = (Hop("a", "b", "QUEUE_FULL"),), 7
    account = Account(lambda model: f"label of {model}", *books)
    account.begin(call)
    account.end(call, 429, error)
    assert [book.begun for book in books] == [[call], [call]]
    (record,) = books[0].records
    assert books[1].records == [record]
    assert (record.label, record.path, record.tenant, record.seconds) == ("label of m", CHAT, "anonymous", 2.5)
    assert (record.failed, record.cancelled, record.straight) == (True, False, False)
    assert (record.reason, record.rejection, record.retries) == ("QUEUE_FULL", "deadline", 2)
    assert record.wasted == {"failed_attempt": 7}


def test_of_a_call_that_went_straight_there_is_no_more_to_say() -> None:
    record = CallRecord(make_call(), 200, None, "m")
    assert record.straight
    assert (record.reason, record.rejection, record.retries, record.wasted) == ("", "", 0, {})


def test_a_bug_in_one_book_or_in_the_labels_is_logged_and_costs_no_other() -> None:
    class Bad:
        def end(self, record: CallRecord) -> None:
            raise RuntimeError("a bug")

    class Good:
        def __init__(self) -> None:
            self.labels: list[str] = []

        def end(self, record: CallRecord) -> None:
            self.labels.append(record.label)

    def label(model: str) -> str:
        raise RuntimeError("a bug")

    good, call = Good(), make_call()
    with structlog.testing.capture_logs() as logs:
        Account(str, Bad(), good).end(call, 200, None)
        Account(label, good).end(call, 200, None)
    assert good.labels == [call.model, "other"]
    assert [(line["event"], line["request_id"]) for line in logs] == [("bug", call.id)] * 2
