"""EndpointSlices of Kubernetes (discovery.k8s.io/v1): the fields that are read, and which addresses calls may go to.

https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions
"""

from collections.abc import Iterable

import msgspec

from lexora_router.discovery.source import LookFailed, address

# A pod with addresses of two families is in slices of both: the first family that there is counts.
_FAMILIES = ("IPv4", "IPv6", "FQDN")


class Conditions(msgspec.Struct, frozen=True):
    """Null means: ready, as ready, and not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class PodEndpoint(msgspec.Struct, frozen=True):
    """One pod. Its addresses are as good as each other, and the first one is used."""

    addresses: tuple[str, ...] = ()
    conditions: Conditions = Conditions()


class SlicePort(msgspec.Struct, frozen=True):
    """A port that all endpoints of a slice have."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class Metadata(msgspec.Struct, frozen=True, rename={"resource_version": "resourceVersion", "next": "continue"}):
    """Of a slice or a list; `next` is where the next page of a list begins."""

    name: str = ""
    resource_version: str = ""
    next: str = ""


class EndpointSlice(msgspec.Struct, frozen=True, rename={"family": "addressType"}):
    """A part of a Service's endpoints."""

    metadata: Metadata = Metadata()
    family: str = ""
    endpoints: tuple[PodEndpoint, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None


class SliceList(msgspec.Struct, frozen=True):
    """A page of a list."""

    metadata: Metadata
    items: tuple[EndpointSlice, ...] | None = None


class WatchEvent(msgspec.Struct, frozen=True):
    """ADDED, MODIFIED, DELETED, BOOKMARK, or ERROR with a Status."""

    type: str
    object: msgspec.Raw


class Status(msgspec.Struct, frozen=True):
    """What went wrong."""

    code: int = 0
    message: str = ""
    reason: str = ""


def addresses_of(slices: Iterable[EndpointSlice], port: str | None) -> set[str]:
    """Addresses of the ready pods; where there is none, of those that shut down and still serve, as kube-proxy does it.

    `port` is a name or a number, None for the only one. Raises LookFailed when there is no such port, or no only one.
    """
    every = list(slices)
    for family in _FAMILIES:
        pods = [(pod, each) for each in every if each.family == family for pod in each.endpoints or () if pod.addresses]
        if not pods:
            continue
        ready = [(pod, each) for pod, each in pods if pod.conditions.ready is not False]
        leaving = [(pod, each) for pod, each in pods if pod.conditions.serving and pod.conditions.terminating]
        return {address(pod.addresses[0], _port(each, port)) for pod, each in ready or leaving}
    return set()


def _port(of: EndpointSlice, wanted: str | None) -> int:
    if wanted is not None and wanted.isdecimal():
        return int(wanted)
    ports = [each for each in of.ports or () if each.port is not None and each.protocol in (None, "", "TCP")]
    chosen = [each for each in ports if wanted is None or each.name == wanted]
    if len(chosen) == 1 and chosen[0].port is not None:
        return chosen[0].port
    names = ", ".join(sorted(each.name or str(each.port) for each in ports)) or "none"
    if wanted is None:
        raise LookFailed(f"the service has not one port but these: {names}; name one in kubernetes.port")
    raise LookFailed(f"the service has no port {wanted}; it has {names}")
