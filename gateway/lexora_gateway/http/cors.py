"""Pages of other origins may call the gateway: the CORS protocol of https://fetch.spec.whatwg.org/#http-cors-protocol."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lexora_gateway.errors import origin_not_allowed
from lexora_gateway.openai.header_docs import REFUSAL
from lexora_gateway.request import request_id_of
from lexora_gateway.response import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lexora_gateway.asgi_types import HeaderList, Headers
    from lexora_gateway.http.exchange import Exchange

ANY = "*"
_METHODS = b"DELETE, GET, HEAD, POST"
# Pages see these headers of an answer. There is no sign for a prefix such as x-lexora-.
EXPOSED = ", ".join(REFUSAL)
_VARY = (b"vary", b"Origin")
_VARY_PREFLIGHT = (b"vary", b"Origin, Access-Control-Request-Headers, Access-Control-Request-Private-Network")


class Cors:
    """Which origins may call and see what they are answered.

    An origin is `scheme://host[:port]`, in which `*` stands for one or more letters, digits, dots and hyphens; `*` alone is any
    origin. Of `headers`, those that a page may send, `*` is any. A browser asks again after `max_age` seconds. Cookies and
    the browser's own passwords are never asked for: keys travel in the page's own headers.
    """

    def __init__(self, origins: Sequence[str], *, headers: Sequence[str] = (ANY,), max_age: float = 600.0) -> None:
        self._any = ANY in origins
        self._origin = re.compile("|".join(_pattern(origin) for origin in origins).encode())
        self._headers = None if ANY in headers else ", ".join(headers).encode()
        self._max_age = b"%d" % max_age
        self._exposed = (b"access-control-expose-headers", EXPOSED.encode())

    def allowed(self, headers: Headers) -> HeaderList:
        """What an answer to a request with these headers has beside its own."""
        origin = headers.get(b"origin")
        if self._any:
            return [] if origin is None else [(b"access-control-allow-origin", b"*"), self._exposed]
        if origin is None or not self._allows(origin):
            return [_VARY]
        return [(b"access-control-allow-origin", origin), self._exposed, _VARY]

    def is_preflight(self, method: bytes, headers: Headers) -> bool:
        """Whether a request is a browser's question ahead of another one."""
        return method == b"OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers

    async def preflight(self, client: Exchange) -> None:
        """Answer a question ahead. Every path is answered alike: a missing path shows in the answer to the request itself."""
        headers = client.headers
        answer = Answer(client, request_id_of(headers))
        origin = headers[b"origin"]
        if not self._any and not self._allows(origin):
            failure = origin_not_allowed(origin.decode("latin-1"))
            failure.headers.append(_VARY_PREFLIGHT)
            answer.fail(failure)
            return
        asked = headers.get(b"access-control-request-headers")
        granted = [
            (b"access-control-allow-origin", b"*" if self._any else origin),
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", self._max_age),
            _VARY_PREFLIGHT,
        ]
        if asked:
            # To name them is the only way to allow them all: `*` leaves out Authorization.
            granted.append((b"access-control-allow-headers", asked if self._headers is None else self._headers))
        if headers.get(b"access-control-request-private-network") == b"true":
            granted.append((b"access-control-allow-private-network", b"true"))
        answer.empty(204, granted)

    def _allows(self, origin: bytes) -> bool:
        return self._origin.fullmatch(origin) is not None


def _pattern(origin: str) -> str:
    return "[A-Za-z0-9.-]+".join(re.escape(part) for part in origin.split("*"))
