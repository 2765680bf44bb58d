from lexora_contract.answer import Usage
from lexora_router.telemetry.counts import Counts, CountsByName, CountsByRecentName


def test_every_call_ends_in_one_way() -> None:
    counts = Counts()
    counts.add(Usage(5, 7, cached_tokens=2), failed=False, cancelled=False)
    counts.add(Usage(1, 1), failed=True, cancelled=False)
    counts.add(None, failed=False, cancelled=True)
    assert (counts.total, counts.successful, counts.failed, counts.cancelled) == (3, 1, 1, 1)
    assert (counts.tokens_input, counts.tokens_output, counts.tokens_cached) == (6, 8, 2)


def test_the_first_names_have_a_place_of_their_own_and_the_others_share_one() -> None:
    counts = CountsByName(200)
    for number in range(50_000):
        counts[f"user-{number}"].add(None, failed=False, cancelled=False)
    for name in ("user-3", "user-4000"):
        counts[name].add(None, failed=True, cancelled=False)
    told = dict(counts.items())
    assert len(told) == 201
    assert (told["user-3"].total, told["user-199"].total, told["other"].total) == (2, 1, 49_801)
    assert (told["user-3"].failed, told["other"].failed) == (1, 1)


def test_who_is_called_other_shares_with_the_others() -> None:
    counts = CountsByName(2)
    for name in ("other", "a", "b"):
        counts[name].add(None, failed=False, cancelled=False)
    assert {name: each.total for name, each in counts.items()} == {"other": 2, "a": 1}


def test_names_that_come_and_go_keep_their_counts_as_long_as_they_are_the_last_ones() -> None:
    counts, call = CountsByRecentName(2), Counts()
    call.add(None, failed=False, cancelled=False)
    for name in ("a", "b", "a", "c", "d", "a"):
        counts.add(name, call)
    assert {name: each.total for name, each in counts.items()} == {"d": 1, "a": 1, "other": 4}
