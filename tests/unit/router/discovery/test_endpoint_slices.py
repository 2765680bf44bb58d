import re
from typing import Any

import msgspec
import pytest
from tests.support.kube_api import pod

from lexora_router.discovery.endpoint_slices import EndpointSlice, addresses_of
from lexora_router.discovery.source import LookFailed

HTTP = {"name": "http", "port": 8000, "protocol": "TCP"}
METRICS = {"name": "metrics", "port": 9000, "protocol": "TCP"}
UDP = {"name": "gossip", "port": 7000, "protocol": "UDP"}


def part(*pods: dict[str, Any], ports: list[Any] | None = None, family: str = "IPv4") -> EndpointSlice:
    found = {"metadata": {"name": "x"}, "addressType": family, "endpoints": list(pods), "ports": ports or [HTTP]}
    return msgspec.json.decode(msgspec.json.encode(found), type=EndpointSlice)


@pytest.mark.parametrize(
    ("slices", "wanted"),
    [
        ([], set()),
        ([part()], set()),
        ([part(pod("10.0.0.1")), part(pod("10.0.0.2"))], {"10.0.0.1:8000", "10.0.0.2:8000"}),
        ([part(pod("10.0.0.1", ready=None), pod("10.0.0.2", ready=False))], {"10.0.0.1:8000"}),
        # A pod that shuts down is no place for new calls, as long as another one is ready.
        ([part(pod("10.0.0.1"), pod("10.0.0.2", ready=False, serving=True, terminating=True))], {"10.0.0.1:8000"}),
        ([part(pod("10.0.0.2", ready=False, serving=True, terminating=True))], {"10.0.0.2:8000"}),
        ([part(pod("10.0.0.2", ready=False, serving=False, terminating=True))], set()),
        # Not ready, and not shutting down: it starts, or says that it cannot.
        ([part(pod("10.0.0.2", ready=False, serving=False))], set()),
        # Each pod has an address of both families.
        ([part(pod("fd00::1"), family="IPv6"), part(pod("10.0.0.1"))], {"10.0.0.1:8000"}),
        ([part(pod("fd00::1"), family="IPv6")], {"[fd00::1]:8000"}),
        ([part(pod("gpu1.example"), family="FQDN")], {"gpu1.example:8000"}),
    ],
)
def test_calls_may_go_to(slices: list[EndpointSlice], wanted: set[str]) -> None:
    assert addresses_of(slices, None) == wanted


@pytest.mark.parametrize(
    ("ports", "wanted", "found"),
    [
        ([HTTP], None, "10.0.0.1:8000"),
        ([HTTP, UDP], None, "10.0.0.1:8000"),
        ([HTTP, METRICS], "metrics", "10.0.0.1:9000"),
        ([HTTP, METRICS], "8001", "10.0.0.1:8001"),
        ([HTTP, METRICS], None, "the service has not one port but these: http, metrics; name one in kubernetes.port"),
        ([HTTP], "grpc", "the service has no port grpc; it has http"),
        ([UDP], None, "the service has not one port but these: none; name one in kubernetes.port"),
    ],
)
def test_the_port_is(ports: list[Any], wanted: str | None, found: str) -> None:
    slices = [part(pod("10.0.0.1"), ports=ports)]
    if found.startswith("the service"):
        with pytest.raises(LookFailed, match=re.escape(found)):
            addresses_of(slices, wanted)
    else:
        assert addresses_of(slices, wanted) == {found}
