"""Where the addresses of a backend's engines are found while the gateway runs: DNS, a file, or a Kubernetes Service."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, model_validator

from lexora_router.config.check import Fault
from lexora_router.config.section import Section, refuse
from lexora_router.config.values import MAX_ITEMS, Port, Seconds, Text, Url, UrlPath, split_address

SOURCES = ("dns", "srv", "file", "kubernetes")
_PORT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?")  # RFC 6335, section 5.1; or a number
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_OBJECT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123, of services and namespaces
_LOOPBACK = re.compile(r"http://(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?:[:/]|$)")
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def _dns_name(name: str) -> str:
    if len(name) > 254 or not all(_LABEL.fullmatch(label) for label in name.removesuffix(".").split(".")):
        raise ValueError("must be a name in DNS, such as vllm.prod.svc.cluster.local, without a scheme or a port")
    return name


def _server(text: str) -> str:
    """Check the address of a name server, with or without a port."""
    import ipaddress  # noqa: PLC0415 - of a key that few configurations have

    try:
        ipaddress.ip_address(text)
    except ValueError:
        parts = split_address(f"//{text}")
        try:
            ipaddress.ip_address(parts.hostname or "")
        except ValueError:
            raise ValueError("must be the IP address of a name server, such as 10.96.0.10, 10.96.0.10:53") from None
    return text


def _kubernetes_name(name: str) -> str:
    if not _OBJECT.fullmatch(name):
        raise ValueError("must be 1 to 63 small letters and digits, with '-' between them")
    return name


def _port_name(port: object) -> object:
    return str(port) if isinstance(port, int) and not isinstance(port, bool) else port


def _check_port_name(port: str) -> str:
    if port.isdecimal() and not 0 < int(port) < 65536:
        raise ValueError("must be a port from 1 to 65535, or the name of one")
    if not _PORT.fullmatch(port):
        raise ValueError("must be the name of a port, such as http, or its number")
    return port


DnsName = Annotated[str, Strict(), AfterValidator(_dns_name)]
NameServer = Annotated[str, Strict(), AfterValidator(_server)]
PortName = Annotated[str, BeforeValidator(_port_name), Strict(), AfterValidator(_check_port_name)]
KubernetesName = Annotated[str, Strict(), AfterValidator(_kubernetes_name)]


class KubernetesConfig(Section):
    """A Service of Kubernetes, whose EndpointSlices are followed. By default as a pod of the cluster."""

    service: KubernetesName
    namespace: KubernetesName | None = None  # None: the one that the pod is in
    port: PortName | None = None  # name or number; None: the only one
    server: Url | None = None  # None: KUBERNETES_SERVICE_HOST and _PORT
    token_file: Text = f"{_ACCOUNT}/token"
    ca_file: Text | None = f"{_ACCOUNT}/ca.crt"  # None: the system's authorities


class DiscoverConfig(Section):
    """One source of addresses, and how often it is asked."""

    dns: DnsName | None = None  # A and AAAA with `port`, else SRV
    srv: DnsName | None = None
    file: Text | None = None
    kubernetes: KubernetesConfig | None = None
    port: Port | None = None
    ip: Literal["auto", "ipv4", "ipv6", "both"] = "auto"  # auto: IPv6 where there is no IPv4
    servers: tuple[NameServer, ...] = Field(default=(), max_length=16)  # none: those of /etc/resolv.conf
    labels: dict[Text, Text] = Field(default={}, max_length=MAX_ITEMS)  # of the groups of a file that count
    scheme: Literal["http", "https"] = "http"
    path: UrlPath | None = None  # in front of the API's paths
    min_interval: Seconds = 5.0  # between two lookups, however short the TTL
    max_interval: Seconds = 60.0
    timeout: Seconds = 5.0  # of one lookup with all its tries

    @property
    def service_name(self) -> str | None:
        """The name of SRV records to ask for; None for other sources."""
        return self.srv or (self.dns if self.port is None else None)

    @property
    def certified_name(self) -> str | None:
        """What the engines' certificates are for, where addresses have no names; None where that is not known."""
        return self.dns.removesuffix(".") if self.dns is not None and self.port is not None else None

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        refuse(discover_faults(self.model_dump()))
        return self


def discover_faults(discover: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what excludes each other in one `discover`, with paths relative to it."""
    given = [name for name in SOURCES if discover.get(name) is not None]
    if not given:
        yield (), f"needs one of {', '.join(SOURCES)}"
    yield from (((name,), f"give one of {', '.join(SOURCES)}, and {given[0]} is given") for name in given[1:])
    by_dns = {"dns", "srv"}.intersection(given)
    if given and discover.get("port") is not None and "dns" not in given:
        where = "SRV records have the ports" if "srv" in given else f"the port is part of what {given[0]} has"
        yield ("port",), f"works only with dns: {where}"
    if discover.get("port") == 0:
        yield ("port",), "must be a port from 1 to 65535"
    if given and discover.get("servers") and not by_dns:
        yield ("servers",), "works only with dns and srv"
    if given and discover.get("ip", "auto") != "auto" and not by_dns:
        yield ("ip",), "works only with dns and srv"
    if given and discover.get("labels") and "file" not in given:
        yield ("labels",), "works only with file"
    kubernetes = discover.get("kubernetes")
    server = kubernetes.get("server") if isinstance(kubernetes, Mapping) else None
    if isinstance(server, str) and server.startswith("http:") and not _LOOPBACK.match(server):
        yield (
            ("kubernetes", "server"),
            "must begin with https://, but for a proxy on this machine: the token would be in the clear",
        )
    least, most = discover.get("min_interval"), discover.get("max_interval")
    if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
        yield ("min_interval",), "must not be above max_interval"
