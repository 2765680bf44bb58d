"""The table of failures: every error has a row, every row an error, and the page for readers shows the same."""

import pytest
from tests.unit.docs.pages import page

from lexora_router.errors import (
    DeadlineExceeded,
    NoHealthyEndpoint,
    OutOfResources,
    QueueFull,
    RequestQuarantined,
    RouterError,
    UnsupportedByBackend,
    UpstreamBroken,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from lexora_router.policy.failures import VERDICTS, Kind, hint_of, is_fatal, kind_of, occasions


def refused(status: int, body: bytes = b"{}", headers: tuple[tuple[str, str], ...] = ()) -> UpstreamRefused:
    return UpstreamRefused(status, "application/json", body, headers)


ROWS: list[tuple[RouterError, Kind]] = [
    (UnsupportedByBackend("no such thing", "n"), Kind.NOT_SERVED),
    (QueueFull("full", 1.0), Kind.NO_ROOM),
    (NoHealthyEndpoint("down"), Kind.NO_ROOM),
    (OutOfResources("files"), Kind.OUT_OF_RESOURCES),
    (UpstreamUnreachable("refused", "refused"), Kind.CONNECTION_REFUSED),
    (UpstreamUnreachable("no answer", "timeout"), Kind.CONNECT_TIMEOUT),
    (UpstreamUnreachable("reset", "stale"), Kind.STALE_CONNECTION),
    (RequestQuarantined("fails everywhere", 5.0), Kind.NO_ROOM),
    (UpstreamUnreachable("reset"), Kind.CONNECTION_LOST),
    (UpstreamTimeout("late", "first token"), Kind.NO_FIRST_TOKEN),
    (UpstreamTimeout("silent", "silent"), Kind.GONE_SILENT),
    (UpstreamTimeout("silent", "idle"), Kind.SILENCE),
    (UpstreamTimeout("long", "total"), Kind.OVERTIME),
    (UpstreamBroken("died"), Kind.BROKEN),
    (UpstreamInvalid("an empty 200"), Kind.INVALID),
    (refused(429), Kind.RATE_LIMITED),
    *((error, Kind.OVERLOADED) for error in (refused(503), refused(529), UpstreamInvalid("a page", 503))),
    *((error, Kind.BAD_GATEWAY) for error in (refused(502), refused(504), UpstreamInvalid("a page", 502))),
    (UpstreamInvalid("above the bound", too_large=True), Kind.TOO_LARGE),
    *((refused(status), Kind.ENGINE_ERROR) for status in (500, 520, 530, 599)),
    *((refused(status), Kind.UNSUPPORTED) for status in (501, 505)),
    (UpstreamRefused(500, "application/json", b"{}", blames_request=True), Kind.REQUEST_BLAMED),
    (UpstreamRefused(503, "application/json", b"{}", blames_request=True), Kind.OVERLOADED),
    (UpstreamInvalid("a page", 500), Kind.ENGINE_ERROR),
    (refused(408), Kind.REQUEST_TIMEOUT),
    *((refused(status), Kind.REQUEST_REFUSED) for status in (400, 401, 404, 422, 499)),
    (DeadlineExceeded("late"), Kind.OTHER),
]


@pytest.mark.parametrize(("error", "kind"), ROWS, ids=lambda value: value.name if isinstance(value, Kind) else repr(value)[:60])
def test_an_error_is_of_its_kind(error: RouterError, kind: Kind) -> None:
    assert kind_of(error) is kind


@pytest.mark.parametrize(
    ("error", "death", "fatal"),
    [
        (refused(500, b'{"error":{"message":"engine dead"}}'), b"engine dead", True),
        (refused(500, b'{"error":{"message":"engine dead"}}'), b"", False),
        (refused(503, b'{"error":{"message":"engine dead"}}'), b"engine dead", False),
        (UpstreamBroken("died"), b"", True),
        (UpstreamUnreachable("reset", "lost"), b"", True),
        (UpstreamUnreachable("refused", "refused"), b"", False),
        (UpstreamInvalid("a page", 500), b"", False),
    ],
)
def test_what_an_engine_breaks_under(error: RouterError, death: bytes, fatal: bool) -> None:
    assert is_fatal(error, death) is fatal


def test_every_kind_has_a_row_and_an_error() -> None:
    assert list(VERDICTS) == list(Kind)
    assert {kind for _, kind in ROWS} == set(Kind)


def test_the_page_for_readers_shows_the_table() -> None:
    shown = page("docs/architecture.md").table("failure", "the endpoint", "retried", "falls back")
    assert shown == [
        [
            verdict.what,
            verdict.outcome.value,
            verdict.retry.value,
            verdict.fallback.value,
            "yes" if verdict.resume else "no",
            "yes" if verdict.hint else "no",
        ]
        for verdict in VERDICTS.values()
    ]


def test_a_hint_counts_only_where_waiting_helps() -> None:
    later = (("retry-after", "7"),)
    assert [hint_of(refused(status, headers=later)) for status in (408, 429, 502, 503, 504)] == ["7"] * 5
    assert [hint_of(refused(status, headers=later)) for status in (400, 404, 500, 501, 520)] == [None] * 5
    assert hint_of(UpstreamInvalid("a page", 503, "7")) == "7"
    assert hint_of(UpstreamUnreachable("refused")) is None


def test_occasions_name_what_falls_back() -> None:
    always, with_429 = occasions(on_rate_limit=False), occasions(on_rate_limit=True)
    assert "a refused connection" in always
    assert "4xx" not in with_429
    assert set(with_429.split(", ")) - set(always.split(", ")) == {"429"}
