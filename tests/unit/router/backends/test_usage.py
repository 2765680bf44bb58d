import msgspec
import pytest

from lexora_router.backends.usage import WireUsage, add_usage
from lexora_router.handler import Usage


def read(wire: bytes) -> WireUsage:
    return msgspec.json.decode(wire, type=WireUsage)


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        (b'{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}', Usage(5, 7)),
        (b'{"prompt_tokens":5,"total_tokens":5,"prompt_tokens_details":null}', Usage(5)),
        (
            b'{"prompt_tokens":5,"completion_tokens":0,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0}}',
            Usage(5, 0, 4),
        ),
        (b'{"prompt_tokens":5,"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":6}}', Usage(5, 7, 0, 6)),
        (b'{"input_tokens":3,"output_tokens":4,"input_tokens_details":{"cached_tokens":2}}', Usage(3, 4, 2)),
        (b'{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":2}', Usage(3, 4, 2)),
        (b'{"prompt_tokens":null,"completion_tokens":null}', Usage()),
        (b"{}", Usage()),
    ],
)
def test_each_api_s_counts(wire: bytes, usage: Usage) -> None:
    assert add_usage(None, read(wire)) == usage


def test_a_later_report_replaces_only_what_it_has() -> None:
    first = add_usage(None, read(b'{"input_tokens":16,"output_tokens":0,"cache_read_input_tokens":8}'))
    assert add_usage(first, read(b'{"output_tokens":4}')) == Usage(16, 4, 8)
