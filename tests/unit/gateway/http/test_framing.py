import pytest

from lexora_gateway.errors import Refused
from lexora_gateway.http.framing import check_head, split_target, without_upgrade

HOST = (b"host", b"gateway:8001")


def check(version: str, *pairs: tuple[bytes, bytes]) -> None:
    check_head(b"GET", version, [*pairs], dict(pairs))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"Upgrade, HTTP2-Settings", []),
        (b" upgrade ,KEEP-ALIVE", [b"connection: keep-alive"]),
        (b"close,Upgrade,close", [b"connection: close"]),
        (b"close, keep-alive", [b"connection: close", b"connection: keep-alive"]),
    ],
)
def test_what_is_left_of_connection(given: bytes, kept: list[bytes]) -> None:
    headers = [HOST, (b"connection", given), (b"upgrade", b"h2c"), (b"content-length", b"3")]
    head = without_upgrade(b"POST", b"/a?b=c", "1.1", headers)
    assert head.endswith(b"\r\n\r\n")
    lines = head.split(b"\r\n")[:-2]
    assert lines == [b"POST /a?b=c HTTP/1.1", b"host: gateway:8001", *kept, b"upgrade: h2c", b"content-length: 3"]


@pytest.mark.parametrize("host", [b"", b"a", b"a_b.example:80", b"10.0.0.1", b"[::1]:8001", b"xn--bcher-kva.example", b"a%20b"])
def test_hosts_that_pass(host: bytes) -> None:
    check("1.1", (b"host", host), (b"transfer-encoding", b"Chunked"))


def test_http10_needs_no_host() -> None:
    check("1.0")


@pytest.mark.parametrize("host", [b"a b", b"a, b", b"a/b", b"user@a", b"a\x7f", b"\xc3\xa4"])
def test_hosts_that_do_not(host: bytes) -> None:
    with pytest.raises(Refused) as refused:
        check("1.1", (b"host", host))
    assert (refused.value.failure.status, refused.value.failure.param) == (400, "host")


@pytest.mark.parametrize(
    "pairs",
    [(HOST, HOST), (HOST, (b"host", b"a/b")), ((b"transfer-encoding", b"gzip"), HOST, (b"transfer-encoding", b"chunked"))],
)
def test_every_value_of_a_repeated_header_counts(pairs: tuple[tuple[bytes, bytes], ...]) -> None:
    with pytest.raises(Refused):
        check("1.1", *pairs)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [(b"/a%20b?c=d", b"/a%20b", b"c=d"), (b"http://host/a?b", b"/a", b"b"), (b"*", b"*", b""), (b"//a/b", b"//a/b", b"")],
)
def test_targets(target: bytes, path: bytes, query: bytes) -> None:
    assert split_target(target) == (path, query)


@pytest.mark.parametrize("target", [b"http://host", b"/a b", b"a:443", b"?a", b"/\xff"])
def test_targets_without_a_path(target: bytes) -> None:
    with pytest.raises(Refused) as refused:
        split_target(target)
    assert refused.value.failure.status == 400
