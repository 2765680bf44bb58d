"""Shared keys and responses: the programs in memory and in a real Valkey, side by side."""

import pytest
from hypothesis import strategies as st

from lexora_router.state.programs import keys, responses
from lexora_router.state.programs.keys import CONFLICT, KEYS, KeysRequest, KeyText
from lexora_router.state.programs.responses import RESPONSES, ResponsePut, ResponsesRequest
from tests.contract.state.side_by_side import SideBySide, check
from tests.support.valkey import ValkeyProcess

IDS = st.sampled_from(["k1", "k2", "k3"])
TEXTS = st.sampled_from([("{}", 1), ('{"é":1}', 1), ("x", 40_000)]).map(lambda drawn: drawn[0] * drawn[1])
KEY_TEXTS = st.builds(KeyText, IDS, st.integers(0, 6), TEXTS)
KEY_REQUESTS = st.builds(
    KeysRequest,
    st.integers(0, 6),
    st.lists(KEY_TEXTS, max_size=2, unique_by=lambda key: key.id),
    st.lists(KEY_TEXTS.filter(lambda key: key.revision > 0), max_size=2),
)
PUTS = st.builds(ResponsePut, st.sampled_from(["r1", "r2", "r3"]), st.sampled_from(["a", "b:c"]), st.sampled_from(["x", "é"]))
RESPONSE_REQUESTS = st.builds(ResponsesRequest, st.lists(PUTS, max_size=3), st.lists(st.sampled_from(["r1", "r2", "r3"])))
PROGRAMS = {"keys": KEYS, "responses": RESPONSES}


def test_they_do_the_same(server: ValkeyProcess) -> None:
    check(server, PROGRAMS, {"keys": KEY_REQUESTS, "responses": RESPONSE_REQUESTS}, examples=50)


def test_a_change_from_an_old_revision_is_not_done_and_one_that_was_done_is_well(server: ValkeyProcess) -> None:
    with SideBySide(server, PROGRAMS) as both:
        both.join("a")
        made = ("keys", KeysRequest(0, [KeyText("k1", 0, "new"), KeyText("k2", 0, "new")]))
        for _ in range(2):  # the answer was lost, and it is said again
            (answer,) = both.exchange("a", made).answers
            assert (answer.refused, answer.head, answer.count, [key.revision for key in answer.read]) == ("", 2, 2, [1, 2])
        (answer,) = both.exchange("a", ("keys", KeysRequest(2, [KeyText("k1", 1, "revoked")]))).answers
        assert [(key.id, key.revision, key.text) for key in answer.read] == [("k1", 3, "revoked")]
        # From what another replica has seen before: nothing of it is done, also not to k2.
        stale = KeysRequest(3, [KeyText("k2", 2, "rotated"), KeyText("k1", 1, "rotated")])
        (answer,) = both.exchange("a", ("keys", stale)).answers
        assert (answer.refused, answer.head, answer.read) == (CONFLICT, 3, [])


def test_replicas_put_back_what_an_empty_store_has_forgotten(server: ValkeyProcess) -> None:
    with SideBySide(server, PROGRAMS) as both:
        both.join("a")
        both.exchange("a", ("keys", KeysRequest(0, restore=[KeyText("k1", 7, "revoked"), KeyText("k2", 5, "x")])))
        (answer,) = both.exchange("a", ("keys", KeysRequest(0, restore=[KeyText("k1", 6, "not yet")]))).answers
        assert [(key.id, key.revision, key.text) for key in answer.read] == [("k2", 5, "x"), ("k1", 7, "revoked")]
        # A key that is made there gets a revision that all will read.
        (answer,) = both.exchange("a", ("keys", KeysRequest(9, [KeyText("k3", 0, "new")]))).answers
        assert [key.revision for key in answer.read] == [10]


def test_what_is_kept_is_bounded(server: ValkeyProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds are the same numbers in both files; here they are small ones in both."""
    monkeypatch.setattr(keys, "MAX_KEYS", 2)
    monkeypatch.setattr(responses, "MAX_OF_TENANT", 2)
    monkeypatch.setattr(responses, "MAX_RESPONSES", 3)
    small = {
        "keys": keys.ProgramKind(KeysRequest, KEYS.gives, KEYS.make, KEYS.lua.replace("200000, 256", "2, 256")),
        "responses": keys.ProgramKind(
            ResponsesRequest, RESPONSES.gives, RESPONSES.make, RESPONSES.lua.replace("10000, 200000", "2, 3")
        ),
    }
    check(server, small, {"keys": KEY_REQUESTS, "responses": RESPONSE_REQUESTS}, examples=50)
    with SideBySide(server, small) as both:
        both.join("a")
        (answer,) = both.exchange("a", ("keys", KeysRequest(0, [KeyText(each, 0, "x") for each in ("1", "2", "3")]))).answers
        assert (answer.refused, answer.count) == (keys.FULL, 0)
        puts = [ResponsePut(str(number), "ab"[number // 3], "x") for number in range(5)]
        (answer,) = both.exchange("a", ("responses", ResponsesRequest(puts, ["0", "1", "2", "3", "4"]))).answers
        assert [put.id for put in answer.found] == ["2", "3", "4"]


def test_what_the_server_has_evicted_is_lost_and_nothing_else(server: ValkeyProcess) -> None:
    with SideBySide(server, PROGRAMS) as both:
        both.join("a")
        made = KeyText("k1", 0, "new")
        both.exchange("a", ("keys", KeysRequest(0, [made])), ("responses", ResponsesRequest([ResponsePut("r1", "a", "x")])))
        both.evict("lasting:keys:texts", "lasting:responses:responses")
        asks = ("keys", KeysRequest(0)), ("responses", ResponsesRequest([ResponsePut("r2", "a", "x")], ["r1", "r2"]))
        kept, found = both.at_valkey("a", *asks)
        assert (kept.count, kept.read, [put.id for put in found.found]) == (0, [], ["r2"])


def test_the_numbers_are_the_same_in_both_languages() -> None:
    bounds = (keys.MAX_KEYS, keys.MAX_READ, keys.MAX_READ_CHARS)
    assert f"MAX_KEYS, MAX_READ, MAX_READ_CHARS = {', '.join(map(str, bounds))}\n" in KEYS.lua
    bounds = (int(responses.TTL_SECONDS), responses.MAX_OF_TENANT, responses.MAX_RESPONSES, responses.MAX_CLEARED)
    assert f"= {', '.join(map(str, bounds))}\n" in RESPONSES.lua
