"""The form of a key: what is made is taken, and what was damaged on its way is not."""

import re
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from lexora_router.access.key_format import LENGTH, SECRET_LENGTH, is_key, new_key

KEY = new_key().text


def test_a_new_key_has_the_form_that_secret_scanners_look_for() -> None:
    made = [new_key() for _ in range(200)]
    for key in made:
        assert is_key(key.text)
        assert re.fullmatch(r"sk-lx-[0-9A-Za-z]{12}-[0-9A-Za-z]{43}[0-9a-f]{8}", key.text)
        assert key.text.startswith(f"sk-lx-{key.id}-")
        assert key.digest == sha256(key.text.encode()).hexdigest()
        assert key.text not in repr(key)
    assert len({key.id for key in made}) == len({key.text[19 : 19 + SECRET_LENGTH] for key in made}) == 200
    assert 62**SECRET_LENGTH >= 2**256


@given(st.integers(0, LENGTH - 1), st.characters())
def test_one_wrong_character_is_found(place: int, character: str) -> None:
    changed = KEY[:place] + character + KEY[place + 1 :]
    assert is_key(changed) is (changed == KEY)


@given(st.integers(6, LENGTH - 2))
def test_two_characters_that_changed_places_are_found(place: int) -> None:
    changed = KEY[:place] + KEY[place + 1] + KEY[place] + KEY[place + 2 :]
    assert is_key(changed) is (changed == KEY)


@given(st.text(max_size=200))
def test_other_text_is_no_key(text: str) -> None:
    assert not is_key(text)
    assert not is_key(KEY + text) or not text
    assert not is_key(text + KEY) or not text
