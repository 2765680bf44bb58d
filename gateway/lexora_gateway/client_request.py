"""A request as its route sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lexora_contract.port import CallContext
    from lexora_gateway.asgi_types import Headers
    from lexora_gateway.request import Metadata


class ClientRequest:
    """A request: headers, identity, how it came here, the body as far as it is there, and the context of its call.

    A large body is a large part of what a waiting call takes, so what passes it on takes it out of here.
    """

    __slots__ = ("body", "certificate", "context", "headers", "hops", "request_id")

    def __init__(self, headers: Headers, request_id: str, hops: Metadata = (), certificate: tuple[str, ...] = ()) -> None:
        self.headers = headers
        self.hops = hops
        self.certificate = certificate
        self.request_id = request_id
        self.body = b""
        self.context: CallContext  # once the body is there

    def context_with_body(self) -> CallContext:
        """The context, to which the body goes."""
        self.context.body, self.body = self.body, b""
        return self.context
