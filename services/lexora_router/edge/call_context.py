"""What surrounds a call, and what of it the router reads."""

from lexora_contract.access import KEY_PREFIX
from lexora_contract.answer import Headers
from lexora_contract.limits import MAX_FORWARDED, MAX_TRACE
from lexora_contract.port import CallContext
from lexora_router.errors import InvalidRequest
from lexora_router.policy.callers import TrustedProxies, network_of

USER = "x-lexora-user"
TENANT = "x-lexora-tenant"
TRACE = ("traceparent", "tracestate")
_NO_TRACE: dict[str, str] = {}


def origin_of(context: CallContext, proxies: TrustedProxies) -> tuple[str, str, str, Headers]:
    """User and tenant that a trusted proxy let in, the client's network (each empty for none), and the headers of the trace.

    Of these each is there at most once, and none that is too long or has a key in it.
    """
    hops, user, tenant, trace, trusted = "", "", "", _NO_TRACE, proxies.trusts(context.peer)
    for name, value in context.metadata:
        if name in TRACE:
            if len(value) <= MAX_TRACE and KEY_PREFIX not in value:
                trace = trace | {name: value}
        elif not trusted:
            continue
        elif name == "x-forwarded-for":
            hops = f"{hops},{value}" if hops else value
        elif name == USER:
            user = value.strip()
        elif name == TENANT:
            tenant = value.strip()
    network = network_of(proxies.client(context.peer, hops[-MAX_FORWARDED:]))
    return user, tenant, network, tuple(trace.items()) if trace else ()


def check_identity(context: CallContext) -> None:
    """Raise InvalidRequest for a user or tenant that is named twice: the second may be the client's, passed on by a proxy."""
    if len(context.metadata) < 2:
        return
    names = [name for name, _ in context.metadata]
    for name in (USER, TENANT):
        if names.count(name) > 1:
            raise InvalidRequest(f"{name} is there more than once; a proxy must replace it, not add another one.", name)


def announces_streams(context: CallContext) -> bool:
    """Whether the caller wants a message, with the receipt so far, as soon as its call is known to stream."""
    return ("x-lexora-announce", "stream") in context.metadata
