"""From the context of a gRPC call to that of the contract: metadata, deadline, address and certificate."""

from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import unquote

import grpc

from lexora_contract.access import certificate_names
from lexora_contract.port import CallContext
from lexora_router.edge.grpc_reading import Parted
from lexora_router.edge.services import Services

# A client gives up at its deadline by itself; the router ends a call this much before, so that its status, which says
# what was waited for, still arrives: a share of the time there is, but no more than so many seconds.
RETURN_SHARE = 0.1
RETURN_SECONDS = 0.05

GrpcContext = grpc.aio.ServicerContext[Any, Any]


def wire_of(context: GrpcContext, request: Parted[Any] | None = None) -> CallContext:
    """What surrounds a call, and its body; the deadline a little before the client's own."""
    pairs = context.invocation_metadata() or ()
    remaining = context.time_remaining()
    if remaining is not None:
        remaining -= min(remaining * RETURN_SHARE, RETURN_SECONDS)
    metadata = tuple((key, value) for key, value in pairs if isinstance(value, str))
    return CallContext(metadata, remaining, b"" if request is None else request.take_body(), _address(context.peer()))


class Wire(Protocol):
    """What surrounds a call at this wire."""

    def __call__(self, context: GrpcContext, request: Parted[Any] | None = None, /) -> CallContext:
        """The call's surroundings, and its body."""
        ...


def certified(context: GrpcContext, request: Parted[Any] | None = None) -> CallContext:
    """As `wire_of`, where a client shows a certificate."""
    wire, shown = wire_of(context, request), context.auth_context()
    wire.certificate = _names(*(tuple(shown.get(kind, ())) for kind in ("peer_dns", "peer_uri", "peer_email")))
    return wire


def believed(service: Services, wire: Wire, context: GrpcContext, request: Parted[Any] | None = None) -> CallContext:
    """As `wire`, without what its sender may not say of others."""
    found, forwarders = wire(context, request), service.guard.serving.forwarders
    return found if forwarders is None else forwarders.believed(found)


@lru_cache(1024)
def _names(*names: tuple[bytes, ...]) -> tuple[str, ...]:
    return certificate_names(*([name.decode("utf-8", "replace") for name in kind] for kind in names))


@lru_cache(4096)
def _address(peer: str) -> str:
    """The address in gRPC's `ipv4:10.0.0.1:5000` or `ipv6:%5B::1%5D:5000`; empty of a unix socket."""
    kind, _, rest = peer.partition(":")
    return unquote(rest).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""
