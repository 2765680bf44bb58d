"""What surrounds a call, and what of it the router reads."""

from lexora_contract.limits import MAX_FORWARDED, MAX_TRACE
from lexora_contract.port import CallContext
from lexora_router.errors import InvalidRequest
from lexora_router.policy.callers import TrustedProxies, network_of

USER = "x-lexora-user"
TENANT = "x-lexora-tenant"
TRACE = ("traceparent", "tracestate")


def trace_of(context: CallContext) -> tuple[tuple[str, str], ...]:
    """The trace headers, each at most once, without those that are too long."""
    return tuple({name: value for name, value in context.metadata if name in TRACE and len(value) <= MAX_TRACE}.items())


def identity(context: CallContext, proxies: TrustedProxies) -> tuple[str, str, str]:
    """User and tenant that a trusted proxy let in, empty for none, and the client's network, empty where it has no address."""
    hops, user, tenant, trusted = "", "", "", proxies.trusts(context.peer)
    for name, value in context.metadata if trusted else ():
        if name == "x-forwarded-for":
            hops = f"{hops},{value}" if hops else value
        elif name == USER:
            user = value.strip()
        elif name == TENANT:
            tenant = value.strip()
    return user, tenant, network_of(proxies.client(context.peer, hops[-MAX_FORWARDED:]))


def check_identity(context: CallContext) -> None:
    """Raise InvalidRequest for a user or tenant that is named twice: the second may be the client's, passed on by a proxy."""
    names = [name for name, _ in context.metadata]
    for name in (USER, TENANT):
        if names.count(name) > 1:
            raise InvalidRequest(f"{name} is there more than once; a proxy must replace it, not add another one.", name)


def announces_streams(context: CallContext) -> bool:
    """Whether the caller wants a message, with the receipt so far, as soon as its call is known to stream."""
    return ("x-lexora-announce", "stream") in context.metadata
