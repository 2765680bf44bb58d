from collections.abc import Iterator

import pytest

from lexora_router import errors
from lexora_router.errors import ModelNotFound, RouterError, UpstreamFailure, UpstreamRefused, http_status


def tree(root: type[RouterError]) -> Iterator[type[RouterError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


DRAWN = [line.strip("│├└─ ").split() for line in (errors.__doc__ or "").splitlines() if "──" in line]


def test_the_drawing_is_the_tree() -> None:
    classes = {cls.__name__: cls for cls in tree(RouterError) if cls.__module__ == errors.__name__} | {}
    assert {words[0] for words in DRAWN} == set(classes) - {"RouterError"}
    for name, status, reason, *_ in DRAWN:
        if name == "UpstreamFailure":
            continue  # a branch, never raised itself
        assert classes[name].reason == reason
        assert status == "as" or classes[name].status == int(status)


def test_reasons_are_distinct() -> None:
    reasons = [cls.reason for cls in tree(RouterError) if cls not in (RouterError, UpstreamFailure)]
    assert len(reasons) == len(set(reasons))


def test_a_refusal_has_the_engine_s_status() -> None:
    assert http_status(UpstreamRefused(422, "application/json", b"{}")) == 422
    assert http_status(ModelNotFound("m")) == 404


def test_a_long_model_name_makes_no_long_message() -> None:
    error = ModelNotFound("m" * 10_000)
    assert len(error.message) < 400
    assert error.param == "model"


@pytest.mark.parametrize("cls", list(tree(RouterError)), ids=lambda cls: cls.__name__)
def test_every_error_says_what_it_is(cls: type[RouterError]) -> None:
    assert cls.__doc__
    assert 400 <= cls.status < 600
