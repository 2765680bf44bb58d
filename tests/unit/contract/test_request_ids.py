import os
import re
from itertools import pairwise

from lexora_contract.request_ids import is_request_id, new_request_id


def test_an_id_does_not_follow_from_those_before_it() -> None:
    ids = [new_request_id() for _ in range(10_000)]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    for part in (slice(0, 16), slice(16, 32), slice(8, 24)):
        assert len({each[part] for each in ids}) == len(ids), "no half is a counter or the same for all"
    rising = sum(after > before for before, after in pairwise(ids))
    assert 4_000 < rising < 6_000


def test_what_can_be_an_id() -> None:
    for good in ("a", "!~", "r" * 128, "sk-other", new_request_id()):
        assert is_request_id(good), good
    for bad in ("", "a b", "a\n", "\u00e9", "r" * 129, "sk-lx-", f"id-sk-lx-{'A' * 12}"):
        assert not is_request_id(bad), bad


def test_a_forked_process_has_ids_of_its_own() -> None:
    new_request_id()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, new_request_id().encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        theirs = pipe.read()
    assert len(theirs) == 32
    assert theirs not in {new_request_id() for _ in range(512)}
