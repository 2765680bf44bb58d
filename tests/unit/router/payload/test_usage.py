import json
from typing import Any

import msgspec
import pytest

from lexora_contract.answer import Usage
from lexora_router.payload.usage import UsageJson, merge_usage


def read(usage: dict[str, Any]) -> Usage:
    return msgspec.json.decode(json.dumps(usage), type=UsageJson).counted()


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}, Usage(5, 3)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": None},
            },
            Usage(5, 3, 4, 2),
        ),
        (
            {
                "input_tokens": 5,
                "output_tokens": 3,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(5, 3, 4, 2),
        ),
        (
            {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 1},
            Usage(16, 3, 10),
        ),
        ({"prompt_tokens": None, "completion_tokens": None}, Usage()),
        ({"prompt_tokens": 7.0}, Usage(7)),
        ({"prompt_tokens": 0, "input_tokens": 9}, Usage(0)),
        ({}, Usage()),
    ],
)
def test_each_api_s_counts(usage: dict[str, Any], counted: Usage) -> None:
    assert read(usage) == counted


def test_a_negative_count_is_none() -> None:
    with pytest.raises(msgspec.ValidationError):
        read({"prompt_tokens": -1})


def test_usage_that_comes_in_pieces() -> None:
    opening, closing = Usage(16, 0, 15), Usage(0, 4, 0, 1)
    assert merge_usage(None, opening) == opening
    assert merge_usage(opening, closing) == Usage(16, 4, 15, 1)
