"""What a request's head must say for its end to be certain, and how an offered upgrade is left out of it (RFC 9112)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from httptools import HttpParserInvalidURLError, parse_url

from lexora_gateway.errors import Refused, invalid, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lexora_gateway.asgi_types import HeaderList, Headers

VERSIONS = frozenset(("1.0", "1.1"))
# reg-name, IPv4 address or bracketed IPv6 address, and a port (RFC 3986); may be empty.
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%\-\[\]:]*")
_KEPT = (b"close", b"keep-alive")


def check_head(method: bytes, version: str, pairs: HeaderList, headers: Headers) -> None:
    """Raise Refused for a head that leaves its meaning open; names of `pairs` and of `headers` are in lower case.

    400: no Host (HTTP/1.1), several, or a malformed one (RFC 9112, 3.2). 405: CONNECT. 501: a transfer coding other than
    chunked (6.1). 505: another version.
    """
    if version not in VERSIONS:
        raise Refused(plain(505, f"HTTP/{version} is not spoken here; use HTTP/1.1."))
    if method == b"CONNECT":
        failure = plain(405, "Method CONNECT is not allowed here: this server is no proxy.")
        failure.headers.append((b"allow", b"GET, HEAD, POST"))
        raise Refused(failure)
    for value in _all(b"transfer-encoding", pairs, headers):
        if value.lower() != b"chunked":
            raise Refused(plain(501, "The only transfer coding that is taken is chunked."))
    hosts = _all(b"host", pairs, headers)
    for value in hosts:
        if _HOST.fullmatch(value) is None:
            raise Refused(invalid("The Host header is malformed.", "host"))
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise Refused(invalid(f"A request must have exactly one Host header, this one has {len(hosts) or 'none'}.", "host"))


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Path, still percent-encoded, and query of a request's target. Raises Refused (400) for one that has no path."""
    try:
        parsed = parse_url(target)
    except HttpParserInvalidURLError:
        parsed = None
    if parsed is None or parsed.path is None:
        raise Refused(invalid("The request target is malformed."))
    return parsed.path, parsed.query or b""


def without_upgrade(method: bytes, target: bytes, version: str, headers: HeaderList) -> bytes:
    """The same head with all of Connection left out but close and keep-alive, so that it offers no upgrade.

    A server may ignore the offer (RFC 9110, 7.8). The Upgrade header itself stays, for those that want to say so.
    """
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    for name, value in headers:
        if name == b"connection":
            options = [option.strip().lower() for option in value.split(b",")]
            lines += [b"connection: " + option for option in _KEPT if option in options]
        else:
            lines.append(name + b": " + value)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _all(name: bytes, pairs: HeaderList, headers: Headers) -> Sequence[bytes]:
    """Every value of a header."""
    if name not in headers:
        return ()
    # The usual head repeats nothing.
    return (headers[name],) if len(headers) == len(pairs) else [value for each, value in pairs if each == name]
