"""Every failure that the simulator can make, through real processes: what the client sees, and which engines were asked.

The golden table says it line by line. `what_should_happen` says it again from the rules, so that a table that was written
anew without thinking does not pass: a 4xx is neither retried nor taken elsewhere, nothing happens after the first byte, a
fallback is never silent, and what the answer's headers say is what the engines saw.
"""

import difflib
from collections.abc import Iterator

import pytest

from tests.support.matrix import GOLDEN, Row, run, table
from tests.support.matrix_cases import KINDS, ROUTES, VARIANTS, Kind, Variant, backend_name

_VARIANTS = {variant.name: variant for variant in VARIANTS}
_BUSY = ("429", "429-soon", "429-later", "429-date")
_LATER = ("429-later", "429-date", "503-later")
_CLIENTS_FAULT = ("400", "401", "404", "422")
_WELL = ("drip", "split", "slow-body")
# An error of the engine's own making, or an answer that is none: the same would come again from the same engine.
_ELSEWHERE = ("500", "500-html", "html", "invalid-json", "empty")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return run()


@pytest.mark.timeout(180)
def test_the_matrix_is_the_golden_one(rows: list[Row]) -> None:
    found, golden = table(rows).splitlines(), GOLDEN.read_text().splitlines()
    changed = "\n".join(difflib.unified_diff(golden, found, "golden", "found", lineterm="", n=3))
    assert not changed, f"python -m tests.support.matrix --write, if this is what should be:\n{changed}"


def test_the_matrix_follows_from_the_rules(rows: list[Row]) -> None:
    wrong = []
    for row in rows:
        expected = what_should_happen(row)
        found = (row.client, row.backend, row.tries, row.engines, row.fallback)
        if not (expected[0] in row.client and expected[1:] == found[1:]):
            wrong.append(f"{row.variant}, {row.kind}, {row.route}, {row.shape}: {found}, not {expected}")
    assert not wrong, "\n".join(wrong)


def test_every_case_is_there(rows: list[Row]) -> None:
    assert {row.kind for row in rows} == KINDS.keys()
    assert {row.route for row in rows} == ROUTES.keys()
    assert {row.variant for row in rows} == _VARIANTS.keys()
    assert len({(row.variant, row.kind, row.route, row.shape) for row in rows}) == len(rows)


def what_should_happen(row: Row) -> tuple[str, str, str, str, str]:
    """Part of what the client sees; backend, tries, engines and fallback, as in the row."""
    kind, variant, route = KINDS[row.kind], _VARIANTS[row.variant], ROUTES[row.route]
    name = backend_name(row.route, kind)
    spares = () if route.forbids or not variant.fallback.get("enabled", True) else route.spares
    asked: list[str] = []
    hops: list[str] = []
    good = False
    committed = False
    for backend in (name, *spares):
        attempts = (
            list(_attempts(row, kind, variant, spares)) if backend == name else _spare_attempts(backend, row, kind, variant)
        )
        asked += [engine for engine, _ in attempts]
        good = attempts[-1][1]
        committed = not good and _commits(row)
        if backend != name:
            hops.append(backend)
        if good or committed or not _goes_elsewhere(kind, variant):
            break
    path = [name, *hops]
    reason = _reason(row)
    fallback = ", ".join(f"{one}->{other};reason={reason}" for one, other in zip(path, hops, strict=False)) or "-"
    seen = ", ".join(engine for engine in asked if engine not in ("dead", "away")) or "-"
    return _client(row, good=good, committed=committed), path[-1], str(len(asked)), seen, fallback


def _attempts(row: Row, kind: Kind, variant: Variant, spares: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Engines of the first backend that are asked, and whether each is well."""
    route = ROUTES[row.route]
    bad = kind.engine
    engines = [bad if engine == "first" else engine for engine in route.engines]
    if row.route == "duo" and bad == "dead" and row.shape == "stream":
        engines = engines[1:]  # the unary call before has found out
    retries = 1 if _may_retry(row, kind, variant) else 0
    if len(engines) == 1 and (_only_elsewhere(row) or bad == "away" or (bad == "dead" and spares)):
        retries = 0
    for number in range(1 + retries):
        engine = engines[number % len(engines)]
        if number and len(engines) == 1 and row.kind in _LATER and variant.retry.get("respect_retry_after", True):
            return  # the same endpoint has asked for more time than there is
        well = row.kind in _WELL
        if row.route == "duo":
            well = well or engine == "second"
        if row.route == "once":
            well = well or number > 0
        yield engine, well
        if well:
            return


def _spare_attempts(backend: str, row: Row, kind: Kind, variant: Variant) -> list[tuple[str, bool]]:
    if backend == "spare":
        return [("spare", True)]
    again = (
        _may_retry(row, kind, variant)
        and not _only_elsewhere(row)
        and not (row.kind in _LATER and variant.retry.get("respect_retry_after", True))
    )
    return [("spare", False)] * (2 if again else 1)


def _may_retry(row: Row, kind: Kind, variant: Variant) -> bool:
    settings = variant.retry
    if kind.silent and row.shape == "unary":
        return False  # not there in time: its engine may have been near the end
    allowed = settings.get("max_retries", 1) > 0 and settings.get("budget_floor", 1) > 0
    return allowed and kind.name not in _CLIENTS_FAULT and not _commits(row)


def _only_elsewhere(row: Row) -> bool:
    """The engine's answer is an error of its own making, or none at all: another engine may do better, the same will not."""
    unary = row.shape == "unary" and row.kind.startswith("malformed")
    return unary or _says_500(row) or row.kind in _ELSEWHERE


def _says_500(row: Row) -> bool:
    """The engine tells of an error of its own while a status can still be sent: an error event before all others is one."""
    return row.kind.endswith("-error") and not _commits(row)


def _commits(row: Row) -> bool:
    """The client has seen something when the kind strikes: the first chunk names the role and comes before any token."""
    late = row.kind in ("freeze-6", "die-0-abort") or row.kind.startswith("die-6-")
    return row.shape == "stream" and late


def _goes_elsewhere(kind: Kind, variant: Variant) -> bool:
    if kind.name in _CLIENTS_FAULT:
        return False
    return kind.name not in _BUSY or bool(variant.fallback.get("on_rate_limit", True))


def _client(row: Row, *, good: bool, committed: bool) -> str:
    if committed:
        return "no text, then upstream_broken" if row.kind == "die-0-abort" else "part, then "
    if good:
        return "200 whole"
    if (KINDS[row.kind].fault or "").startswith("status") and "body" not in (KINDS[row.kind].fault or ""):
        return "the engine's error as it is"
    return {"UPSTREAM_ERROR": "engine's own 500"}.get(_reason(row), _reason(row).lower())


def _reason(row: Row) -> str:
    """Why an attempt failed, in the word that the fallback gives."""
    kind = KINDS[row.kind]
    if (kind.fault or "").startswith("status"):
        return "UPSTREAM_INVALID" if "body" in (kind.fault or "") else "UPSTREAM_ERROR"
    if kind.silent:
        return "UPSTREAM_TIMEOUT"
    if row.kind in _ELSEWHERE or row.kind.startswith("malformed"):
        return "UPSTREAM_INVALID"
    if _says_500(row):
        return "UPSTREAM_ERROR"
    told = row.kind.endswith(("-error", "-abort")) or (row.kind.endswith("-eof") and row.shape == "stream")
    return "UPSTREAM_BROKEN" if told else "UPSTREAM_UNREACHABLE"
