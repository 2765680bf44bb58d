"""Signing in to the page: a key is given once, and a cookie stands for it from then on.

The cookie is HttpOnly and SameSite=Strict, and Secure over https. It counts under /ui only, never for the API: no other page
can make a browser call with it. What changes something needs a header besides, which a form cannot send, and a page of another
origin only after a preflight that is not answered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from fastapi import Request, Response

from lexora_contract.access import CREDENTIALS, Scope
from lexora_contract.port import CallFailed
from lexora_gateway.errors import Refused, invalid, plain, request_timeout, too_large
from lexora_gateway.granted import granted
from lexora_gateway.page_sessions import LONGEST_SECONDS, Sessions
from lexora_gateway.request import scope_context

if TYPE_CHECKING:
    from lexora_contract.port import RouterPort
    from lexora_gateway.asgi_types import HeaderList
    from lexora_gateway.asgi_types import Scope as AsgiScope

COOKIE = "lexora_ui"
HEADER = b"x-lexora-ui"
MAX_BODY_BYTES = 32 * 1024  # a token of 16 KiB in JSON
BODY_SECONDS = 5.0
_TIMEOUT = 5.0
_SAME_ORIGIN = (b"same-origin", b"none")  # Sec-Fetch-Site; older browsers send none at all
_CREDENTIALS = frozenset(name.encode() for name in CREDENTIALS)


class _Given(msgspec.Struct):
    key: str


_decode = msgspec.json.Decoder(_Given).decode


class SignIn:
    """The sessions of one page."""

    def __init__(self, router: RouterPort, sessions: Sessions | None = None) -> None:
        self._router = router
        self._sessions = Sessions() if sessions is None else sessions

    def signed_in(self, scope: AsgiScope) -> AsgiScope:
        """The request with the credential of its session; as it is where it has none, or credentials of its own."""
        headers: HeaderList = scope["headers"]
        if any(name in _CREDENTIALS for name, _ in headers):
            return scope
        credential = self._sessions.credential(_word(scope))
        if not credential:
            return scope
        kept = [pair for pair in headers if pair[0] not in (b"cookie", HEADER)]
        return {**scope, "headers": [*kept, (b"authorization", b"Bearer " + credential.encode("latin-1"))]}

    def has_session(self, scope: AsgiScope) -> bool:
        """Whether a request is one of a session."""
        return self.signed_in(scope) is not scope

    async def sign_in(self, request: Request) -> Response:
        """Open a session for a key that may observe; each attempt counts as any other use of a key."""
        check_own(request.scope)
        credential = await _given(request)
        headers = [pair for pair in request.scope["headers"] if pair[0] not in _CREDENTIALS]
        shown = (b"authorization", b"Bearer " + credential.encode())
        scope = {**request.scope, "headers": [*headers, shown]}
        await granted(self._router, Scope.OBSERVE, scope_context(scope, _TIMEOUT))
        await self._close(_word(request.scope))
        word = self._sessions.open(credential)
        await self._sessions.announce(word)  # the next request may come to another process
        return _with_cookie(request.scope, word, LONGEST_SECONDS)

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        check_own(request.scope)
        await self._close(_word(request.scope))
        return _with_cookie(request.scope, "", 0)

    async def _close(self, word: str) -> None:
        if word:
            self._sessions.close(word)
            await self._sessions.announce(word)

    def forget(self, scope: AsgiScope, failed: CallFailed) -> None:
        """End the session of a request whose credential holds no more."""
        if failed.reason == "UNAUTHENTICATED":
            self._sessions.close(_word(scope))


def check_own(scope: AsgiScope) -> None:
    """Raise Refused (403) for a request that the page itself did not make."""
    headers = dict(scope["headers"])
    if headers.get(HEADER) != b"1" or headers.get(b"sec-fetch-site", b"none") not in _SAME_ORIGIN:
        raise Refused(plain(403, "This is for the page at /ui only: other clients send a key with each request."))


async def _given(request: Request) -> str:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    raise Refused(too_large(MAX_BODY_BYTES))
    except TimeoutError:
        raise Refused(request_timeout(f"The body did not arrive within {BODY_SECONDS:g} s.")) from None
    try:
        key = _decode(body).key.strip()
    except msgspec.DecodeError:
        raise Refused(invalid('The body must be {"key": "..."}.', "key")) from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise Refused(invalid("A key is printable ASCII without spaces.", "key"))
    return key


def _with_cookie(scope: AsgiScope, word: str, seconds: float) -> Response:
    """No Path: the browser takes the folder of the page, also behind a proxy that serves it under another one."""
    secure = "; Secure" if _encrypted(scope) else ""
    cookie = f"{_name(scope)}={word}; Max-Age={seconds:.0f}; HttpOnly; SameSite=Strict{secure}"
    return Response(status_code=204, headers={"set-cookie": cookie, "cache-control": "no-store"})


def _encrypted(scope: AsgiScope) -> bool:
    """Whether the browser came by https. A client that says so of itself can only make its own cookie useless."""
    forwarded = dict(scope["headers"]).get(b"x-forwarded-proto", b"")
    return bool(scope["scheme"] == "https") or forwarded.rpartition(b",")[2].strip().lower() == b"https"


def _name(scope: AsgiScope) -> str:
    """Browsers send a host's cookies to all of its ports: each port has a name of its own."""
    server = scope.get("server")
    return f"{COOKIE}_{server[1]}" if server else COOKIE


def _word(scope: AsgiScope) -> str:
    """The value of the cookie; whatever else is among the cookies of this host may be malformed."""
    wanted = _name(scope).encode()
    lines = (value for name, value in scope["headers"] if name == b"cookie")
    pairs = (part.strip().partition(b"=") for line in lines for part in line.split(b";"))
    return next((value.decode("latin-1") for name, _, value in pairs if name == wanted), "")
