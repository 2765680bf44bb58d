"""What is open to the network under a configuration."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

from lexora_router.config.models import Config
from lexora_router.config.problems import Path

_BELIEVED: dict[str, Callable[[Config], tuple[str, ...]]] = {
    "server.trusted_proxies": lambda config: config.server.trusted_proxies,
    "auth.forwarded": lambda config: config.auth.forwarded,
}
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def reachable(host: str) -> bool:
    """Whether others than this machine may reach an address to listen on; what is not known for sure is."""
    if host.startswith("unix:") or host == "localhost":
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True


def _has_loopback(network: str) -> bool:
    found = ip_network(network)
    return any(found.version == own.version and found.overlaps(own) for own in _LOOPBACK)


def open_hosts(config: Config) -> list[tuple[Path, str]]:
    """The addresses that others may reach, by key path."""
    server = config.server
    hosts: list[tuple[Path, str]] = [(("server", "host"), server.host)]
    if server.grpc_host is not None:
        hosts.append((("server", "grpc_host"), server.grpc_host))
    if server.admin_host is not None and (server.admin_port is not None or server.admin_grpc_port is not None):
        hosts.append((("server", "admin_host"), server.admin_host))
    return [(path, host) for path, host in hosts if reachable(host)]


def openings(config: Config) -> Iterator[str]:
    """Yield what any machine may do or see that reaches the ports, or a proxy on this one that passes on what clients write."""
    if config.auth.enabled and config.admin.allow:
        for network in filter(_has_loopback, config.server.trusted_proxies):
            yield (
                f"a proxy at {network} that passes on a client's own X-Forwarded-For lets it be in any network of admin.allow "
                "(server.trusted_proxies)"
            )
    if not open_hosts(config):
        return
    if not config.auth.enabled:
        yield "no credentials are asked for (auth.mode: off)"
        yield "statistics, recent calls and reload are for everybody (auth.mode: off)"
    elif config.server.admin_port is None or config.server.admin_grpc_port is None:
        yield "operators' paths are on the ports of calls (server.admin_port, server.admin_grpc_port)"
    for name, networks in _BELIEVED.items():
        for network in networks(config) if config.auth.enabled else ():
            if ip_network(network).prefixlen == 0:
                yield f"all of {network} is believed whatever address it names, and is in every network of admin.allow ({name})"
    for network in config.admin.allow:
        if not ip_network(network).is_loopback:
            yield f"operators at {network} need no credentials (admin.allow)"
    if not config.server.tls.enabled:
        yield "HTTP and gRPC are in the clear (server.tls)"
