import base64
import random

import pytest

from lexora_router.policy.input_size import LEAST_MEDIA, MEDIA_TOKENS, input_tokens

PICTURE = base64.b64encode(random.Random(1).randbytes(300_000))
BODY = b'{"model":"m","messages":[{"role":"user","content":%b}]}'


@pytest.mark.parametrize(("size", "tokens"), [(0, 1), (3, 1), (4, 1), (400, 100), (400_000, 100_000)])
def test_text_is_estimated_by_its_bytes(size: int, tokens: int) -> None:
    assert input_tokens(b"a b " * (size // 4) + b"x" * (size % 4)) == tokens


@pytest.mark.parametrize(
    "part",
    [
        b'{"type":"image_url","image_url":{"url":"data:image/png;base64,%b"}}',
        b'{"type":"image_url","image_url":{"url":"data:image\\/png;base64,%b"}}',
        b'{"type":"input_audio","input_audio":{"format":"wav","data": "%b"}}',
        b'{"type":"image","source":{"type":"base64","media_type":"image/png","data":"%b"}}',
    ],
)
@pytest.mark.parametrize("pieces", [1, 3])
def test_base64_is_media_and_no_text(part: bytes, pieces: int) -> None:
    found = input_tokens(BODY % b",".join([part % PICTURE] * pieces))
    assert pieces * MEDIA_TOKENS <= found <= pieces * (MEDIA_TOKENS + LEAST_MEDIA // 4 + 50) + 50


@pytest.mark.parametrize(
    "content",
    [
        b'"%b"' % (b"The quick brown fox. " * 5000),
        b'"%b"' % ("\u6f22\u5b57" * 20000).encode(),
        b'"%b"' % (b'say \\"hi\\" ' * 8000),
        b"[%b]" % b",".join(b"%d" % number for number in range(20000)),
        b"[%b]" % b",".join(b'{"span":"%032x"}' % number for number in range(3000)),
        b'"look: data:image/png;base64,%b and more text"' % (b"QUJD" * 100),
    ],
)
def test_text_of_all_kinds_is_text(content: bytes) -> None:
    body = BODY % content
    assert input_tokens(body) == len(body) // 4


def test_what_is_cut_off_in_mid_string_is_counted_all_the_same() -> None:
    assert input_tokens(b'{"data":"' + PICTURE) == (len(PICTURE) + 9) // 4
