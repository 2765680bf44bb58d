import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.errors import InvalidRequest
from lexora_router.payload.single_keys import SingleKeys

KEYS = SingleKeys("task_id", "id")
NAMES = st.sampled_from(["task_id", "id", "Id", "TASK_ID", "ta\u017fk_id", "tas\u212a_id", "other", "idx"])


@given(
    st.lists(st.tuples(NAMES, st.sampled_from(['"id"', '{"id":1,"ID":2}', "7"])), max_size=4), st.booleans(), st.integers(0, 5)
)
def test_a_key_is_there_once_and_in_small_letters_or_refused(pairs: list[tuple[str, str]], escaped: bool, at: int) -> None:
    def written(name: str) -> str:
        text = json.dumps(name)
        return text[:1] + f"\\u{ord(name[0]):04x}" + text[2:] if escaped and at == 0 else json.dumps(name, ensure_ascii=escaped)

    body = ("{" + ",".join(f"{written(name)}:{value}" for name, value in pairs) + "}").encode()
    keys = [name for name, _ in pairs if name.casefold() in ("task_id", "id")]
    if keys:
        assert KEYS.may_be_in(body)
    if len(set(keys)) == len(keys) and set(keys) <= {"task_id", "id"}:
        KEYS.check(body)
    else:
        with pytest.raises(InvalidRequest, match="once, in small letters"):
            KEYS.check(body)


def test_what_cannot_be_read_is_refused() -> None:
    for body in (b'{"id":1,"ID":', b'{"id":1,"ID":' + b"[" * 100_000, b'{"id":1,"ID":"\xff"}'):
        with pytest.raises(InvalidRequest):
            KEYS.check(body)
