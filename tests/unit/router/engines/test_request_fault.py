import pytest

from lexora_router.engines.request_fault import blames_request

BLAMES = [
    b'{"error":{"message":"m","type":"BadRequestError","param":null,"code":400}}',
    b'{"error":{"message":"m","type":"BadRequestError","param":null,"code":500}}',
    b'{"error":{"message":"m","type":"invalid_request_error","param":"messages","code":null}}',
    b'{"error":{"message":"m","type":"server_error","code":"context_length_exceeded"}}',
    b'{"error":{"message":"m","code":"404"}}',
    b'{"object":"error","message":"m","type":"BadRequestError","param":null,"code":400}',
    b'{"error":{"code":400,"message":"m","type":"exceed_context_size_error"}}',
]
OTHER = [
    b'{"error":{"message":"EngineCore encountered an issue.","type":"InternalServerError","param":null,"code":500}}',
    b'{"error":{"code":500,"message":"m","type":"server_error"}}',
    b'{"error":{"message":"slow down","type":"rate_limit_error","code":429}}',
    b'{"error":{"message":"m","type":{"a":1},"code":[400]}}',
    b'{"error":"BadRequestError"}',
    b'{"detail":"x"}',
    b'["BadRequestError"]',
    b'{"error":' * 5000,
    b"\xff",
    b"",
]


@pytest.mark.parametrize("body", BLAMES)
def test_a_fault_of_the_request_is_seen(body: bytes) -> None:
    assert blames_request(body)


@pytest.mark.parametrize("body", OTHER, ids=lambda body: repr(body[:40]))
def test_anything_else_blames_no_request(body: bytes) -> None:
    assert not blames_request(body)
