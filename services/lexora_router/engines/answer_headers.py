"""Which of an engine's headers go on to the client."""

from lexora_contract.answer import Headers
from lexora_router.engines.response import Response

# Hop-by-hop headers (RFC 9110, section 7.6.1), and those that the gateway sets itself.
DROPPED_HEADERS = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade "
    b"content-length content-type date server set-cookie x-request-id vary alt-svc x-accel-buffering".split()
)
# Other values name further headers that are the connection's own.
_PLAIN_CONNECTION = (b"close", b"keep-alive")


def end_to_end(response: Response) -> Headers:
    """The headers that are not the connection's own, nor ours."""
    dropped = DROPPED_HEADERS
    for name, value in response.headers:
        if name == b"connection" and value not in _PLAIN_CONNECTION:
            dropped = dropped.union(option.strip() for option in value.lower().split(b","))
    kept = [pair for pair in response.headers if pair[0] not in dropped and not pair[0].startswith(b"access-control-")]
    return tuple([(name.decode("latin-1"), value.decode("latin-1")) for name, value in kept])


def without_coding(headers: Headers) -> Headers:
    """The headers of a body without content codings."""
    return tuple(pair for pair in headers if pair[0] != "content-encoding")
