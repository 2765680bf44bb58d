"""Where a call comes from: its user and its client's address, as the wire and the proxies in front of it have them.

Only a proxy that is trusted is believed. A client writes whatever it likes into `X-Forwarded-For`; each proxy adds the address
that it was asked from at the right end, so the client is the first address from the right that is no trusted proxy. `Forwarded`
(RFC 7239) is not read: a proxy that writes the one header passes the other on as the client sent it.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

MAX_HOPS = 16
_CACHED = 4096  # clients; to read an address takes 2 us
_IPV6_PREFIX = 64  # one subscriber has at least such a network, and may take any address in it


class TrustedProxies:
    """The proxies whose word counts, as networks ("10.0.0.0/8"). Raises ValueError for what is none."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ip_network(network) for network in networks)
        self.trusts = lru_cache(_CACHED)(self._trusts)
        self.client = lru_cache(_CACHED)(self._client)

    def _trusts(self, peer: str) -> bool:
        """Whether the one at this address is believed; empty: a unix socket or this process, which are."""
        if not peer:
            return True
        address = _parsed(peer)
        return address is not None and any(address in network for network in self._networks)

    def _client(self, peer: str, forwarded_for: str) -> str:
        """The client's address behind `peer`; empty where it is not given."""
        return self._walk(peer, forwarded_for)[0]

    def origin(self, peer: str, forwarded_for: str) -> str:
        """As `client`; empty as well for one that came with hops of its own, for it may be a proxy that is not known here."""
        client, claims = self._walk(peer, forwarded_for)
        return "" if claims else client

    def _walk(self, peer: str, forwarded_for: str) -> tuple[str, int]:
        """The client, and how many hops it came with itself."""
        client = peer
        hops = forwarded_for.rsplit(",", MAX_HOPS)[-MAX_HOPS:] if forwarded_for else []
        while hops and self.trusts(client):
            address = _parsed(_host(hops[-1].strip()))
            if address is None:
                break
            client = str(address)
            hops.pop()
        return client, len(hops)

    def network(self, hops: str) -> str:
        """The network of the client that is known by its hops alone, of which the nearest, at the right end, is one as well."""
        return network_of(self.client("", hops))


@lru_cache(_CACHED)
def network_of(address: str) -> str:
    """The part of an address that distinguishes clients: all of IPv4, the /64 of IPv6; empty if it is none."""
    parsed = _parsed(address)
    if parsed is None:
        return ""
    return str(parsed) if parsed.version == 4 else str(ip_network((parsed, _IPV6_PREFIX), strict=False))


def _host(hop: str) -> str:
    """The address of a hop, without the port that some proxies write."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed
