"""Which hosts requests may be for. A page of another site that a name server sends here (DNS rebinding) has the wrong one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexora_gateway.client_side import ClientGone
from lexora_gateway.errors import plain
from lexora_gateway.request import request_id_of
from lexora_gateway.response import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lexora_gateway.http.exchange import Exchange

# Probes of a supervisor ask for an address, and learn nothing that matters.
OPEN = frozenset({b"/health", b"/health/live", b"/health/ready"})


class Hosts:
    """Names and addresses without a port; `*.example.com` is for each name below example.com."""

    def __init__(self, names: Iterable[str]) -> None:
        small = [name.lower().encode("ascii") for name in names]
        self._whole = frozenset(name for name in small if not name.startswith(b"*."))
        self._below = tuple(name[1:] for name in small if name.startswith(b"*."))

    def serves(self, exchange: Exchange) -> bool:
        """Whether a request is for one of them."""
        host = _without_port(exchange.headers.get(b"host", b"")).lower()
        return host in self._whole or host.endswith(self._below or (b"\0",)) or exchange.path in OPEN

    async def refuse(self, exchange: Exchange) -> None:
        """Answer 421 (RFC 9110, section 15.5.20), and read no further."""
        failure = plain(421, "This server does not serve the host that the request names (server.hosts).")
        failure.headers.append((b"connection", b"close"))
        try:
            Answer(exchange, request_id_of(exchange.headers)).fail(failure)
        except ClientGone:
            return


def _without_port(host: bytes) -> bytes:
    name, _, port = host.rpartition(b":")
    return name if name and port.isdigit() and (not host.startswith(b"[") or name.endswith(b"]")) else host
