import json
from typing import Any

import pytest

from lexora_router.engines.in_band_error import failure_of, in_mid_answer, is_error
from lexora_router.errors import UpstreamBroken, UpstreamInvalid, UpstreamRefused


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 400}, 400),
        ({"code": "503"}, 503),
        ({"code": 599, "type": "rate_limit_error"}, 599),
        ({"code": "context_length_exceeded", "type": "server_error"}, 400),
        ({"code": "unheard of", "type": "not_found_error"}, 404),
        ({"type": "NotFoundError"}, 404),
        ({"type": "Internal Server Error"}, 500),
        ({"code": 14, "status": "UNAVAILABLE"}, 503),
        ({"type": "overloaded_error"}, 529),
        ("Too many requests", 429),
    ],
)
def test_the_words_of_engines_for_statuses(error: Any, status: int) -> None:
    payload = json.dumps({"error": error}).encode()
    found = failure_of(payload)
    assert isinstance(found, UpstreamRefused)
    assert (found.http_status, found.body) == (status, payload)


@pytest.mark.parametrize("error", [{}, {"code": 200}, {"code": 1301}, {"code": True}, {"type": "x" * 10_000}, [1], "sad", True])
def test_what_names_no_status_is_a_broken_answer(error: Any) -> None:
    found = failure_of(json.dumps({"error": error}).encode())
    assert isinstance(found, UpstreamBroken)
    assert found.message


def test_a_fault_of_the_request_under_a_5xx_is_the_request_s() -> None:
    payload = b'{"error":{"code":500,"type":"BadRequestError"}}'
    found = failure_of(payload)
    assert isinstance(found, UpstreamRefused)
    assert (found.http_status, found.blames_request) == (500, True)


@pytest.mark.parametrize(
    "body", [b"[1]", b"7", b"null", b"{", b'{"error":null}', b'{"error":{},"data":[{}]}', b'{"object":"list"}']
)
def test_what_is_no_error(body: bytes) -> None:
    assert not is_error(body)


def test_after_the_beginning_no_status_can_be_sent() -> None:
    refused, died = failure_of(b'{"error":{"code":400}}'), failure_of(b'{"error":{"code":500,"message":"died"}}')
    assert in_mid_answer(refused).message == "The engine refused the call in mid-answer."
    found = in_mid_answer(died)
    assert isinstance(found, UpstreamBroken)
    assert (found.message, found.event) == ("died", b'{"error":{"code":500,"message":"died"}}')
    other = UpstreamInvalid("x")
    assert in_mid_answer(other) is other
