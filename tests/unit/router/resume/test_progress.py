import pytest

from lexora_router.resume.progress import MAX_CHARS, MAX_IDS, MAX_OPEN_CHARS, REPLACEMENT, Points, Progress


def progress(*, hold: int = 0, greedy: bool = False, keep_ids: bool = True, keep_text: bool = False) -> Progress:
    made = Progress(hold=hold, greedy=greedy, keep_ids=keep_ids, keep_text=keep_text, show_ids=True)
    made.begin([1, 2, 3])
    return made


def test_the_point_is_behind_the_last_text() -> None:
    found = progress()
    for ids, text in (([10], "a"), ([11], "b"), ([12], ""), ([13], "")):
        found.add(ids, text, thinking=False)
    assert found.kept == 2
    assert found.rewind() == 2
    assert found.ids.tolist() == [10, 11]
    assert (found.unseen("é"), found.unseen_ids([12, 13, 14])) == ("é", [14])


def test_a_character_that_is_not_whole_is_made_again() -> None:
    found = progress()
    found.add_one(10, "a")
    found.add_one(11, "b" + REPLACEMENT)
    assert found.rewind() == 1
    assert found.ids.tolist() == [10]
    assert found.owing
    assert found.unseen("b") == ""
    assert found.unseen("éc") == "éc"
    assert found.unseen("d") == "d"


def test_text_that_is_made_again_is_seen_once() -> None:
    found = progress()
    found.add_one(10, "a")
    found.add_one(11, "xyz" + REPLACEMENT)
    found.rewind()
    assert [found.unseen(text) for text in ("x", "yz", REPLACEMENT + "!", "?")] == ["", "", "!", "?"]


def test_held_back_text_moves_the_point_back() -> None:
    points = Points(hold=3)
    for token, text in ((4, "a"), (5, "b"), (6, "c")):  # after token 4 the text is "abcd"-like: three characters are held
        points.add(token, text, sure=True)
    assert points.tokens == 0
    points.add(7, "d", sure=True)
    assert points.tokens == 4
    points.add(8, "ef", sure=True)
    assert points.rewind() == (6, "")
    assert points.rewind() == (6, "")


@pytest.mark.parametrize("hold", [0, 5])
def test_without_a_sure_point_any_one_is_taken_some_time(hold: int) -> None:
    for text, sure in ((REPLACEMENT, True), ("a", False)):
        points = Points(hold)
        for token in range(1, 10 * MAX_OPEN_CHARS):
            points.add(token, text, sure=sure)
        assert points.tokens > 8 * MAX_OPEN_CHARS
        assert len(points.rewind()[1]) < 3 * MAX_OPEN_CHARS


def test_several_tokens_at_once_are_a_sure_point_only_where_dice_are_thrown() -> None:
    for greedy, kept in ((False, 3), (True, 1)):
        found = progress(greedy=greedy)
        found.add([10], "a", thinking=False)
        found.add([11, 12], "b", thinking=False)
        assert found.kept == kept


def test_memory_is_bounded() -> None:
    found = progress()
    found.add(list(range(MAX_IDS - 4)), "a", thinking=False)
    assert found.mode == "token_ids"
    found.add_one(1, "b")
    assert found.mode == "token_ids"
    found.add_one(2, "c")
    assert (found.mode, found.prompt, len(found.ids)) == ("", None, 0)
    found.add([3], "d", thinking=False)
    found.add_one(3, "d")
    assert len(found.ids) == 0
    large = Progress(hold=0, greedy=False, keep_ids=True, keep_text=True, show_ids=False)
    large.begin([0] * (MAX_IDS + 1))
    assert large.mode == ""


def test_the_text_is_bounded_too() -> None:
    found = Progress(hold=0, greedy=False, keep_ids=False, keep_text=True, show_ids=False)
    found.begin([1])
    assert found.mode == "text"
    found.add(None, "a" * MAX_CHARS, thinking=False)
    assert (found.mode, found.kept, len(found.text)) == ("text", 1, MAX_CHARS)
    found.add(None, "b", thinking=False)
    assert (found.mode, found.text) == ("", "")


def test_a_broken_character_is_not_part_of_the_text_to_go_on_from() -> None:
    found = Progress(hold=0, greedy=False, keep_ids=True, keep_text=True, show_ids=False)
    found.add(None, "a" + REPLACEMENT, thinking=False)
    assert found.text == "a"


def test_text_without_ids_ends_the_way_by_ids() -> None:
    found = progress()
    found.add([10], "a", thinking=False)
    found.add(None, "b", thinking=False)
    assert found.mode == ""
    late = Progress(hold=0, greedy=False, keep_ids=True, keep_text=False, show_ids=False)
    late.add([10], "a", thinking=False)
    late.begin([1])
    assert late.mode == ""


def test_thoughts() -> None:
    found = progress()
    found.add([10], "hm", thinking=True)
    assert (found.mode, found.thinking) == ("token_ids", True)
    found.add_one(11, "a")
    assert not found.thinking
    held = progress(hold=3)
    held.add([10], "hm", thinking=True)
    assert held.mode == ""
    spoken = Progress(hold=0, greedy=False, keep_ids=True, keep_text=True, show_ids=False)
    spoken.add(None, "hm", thinking=True)
    assert spoken.mode == ""
