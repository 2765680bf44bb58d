"""Which sources of addresses may be configured together, and what is said of those that may not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lexora_router.config.discover import DiscoverConfig
from lexora_router.config.load import ConfigError, load

KUBERNETES = {"kubernetes": {"service": "vllm"}}
NEEDS = "needs one of dns, srv, file, kubernetes"
NAMES = "is needed by https here: engines are found by IP address, and certificates are for names"


def problems(tmp_path: Path, backend: dict[str, Any], key: str = "discover") -> list[str]:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"routing": {"backends": {"main": backend}}}))
    try:
        load(str(file), {})
    except ConfigError as error:
        return [str(problem).partition("routing.backends.main")[2].removeprefix(".") for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("discover", "wanted"),
    [
        ({"dns": "vllm.prod.svc.cluster.local.", "port": 8000}, []),
        ({"dns": "_http._tcp.vllm.prod"}, []),
        ({"srv": "_http._tcp.vllm.prod", "servers": ["10.0.0.1", "10.0.0.1:5353", "fd00::1", "[fd00::1]:53"]}, []),
        ({"file": "engines.json", "labels": {"model": "a"}}, []),
        ({"kubernetes": {"service": "vllm", "namespace": "prod", "port": 8000, "server": "http://127.0.0.1:8001"}}, []),
        ({"kubernetes": {"service": "vllm", "port": "http"}, "scheme": "http", "path": "/engines/a"}, []),
        ({}, [f"discover: {NEEDS}"]),
        ({"port": 8000}, [f"discover: {NEEDS}"]),
        ({"dns": "a", "file": "b"}, ["discover.file: give one of dns, srv, file, kubernetes, and dns is given"]),
        ({"srv": "a", "port": 1}, ["discover.port: works only with dns: SRV records have the ports"]),
        ({"file": "a", "port": 1}, ["discover.port: works only with dns: the port is part of what file has"]),
        ({"dns": "a", "port": 0}, ["discover.port: must be a port from 1 to 65535"]),
        ({"file": "a", "servers": ["10.0.0.1"]}, ["discover.servers: works only with dns and srv"]),
        ({"file": "a", "ip": "ipv6"}, ["discover.ip: works only with dns and srv"]),
        ({"dns": "a", "port": 1, "labels": {"a": "b"}}, ["discover.labels: works only with file"]),
        ({"file": "a", "min_interval": 9, "max_interval": 8}, ["discover.min_interval: must not be above max_interval"]),
        (
            {"dns": "http://vllm", "port": 1},
            ["discover.dns: must be a name in DNS, such as vllm.prod.svc.cluster.local, without a scheme or a port"],
        ),
        (
            {"dns": "a", "servers": ["ns.test"]},
            ["discover.servers[0]: must be the IP address of a name server, such as 10.96.0.10, 10.96.0.10:53"],
        ),
        ({"kubernetes": {"service": "a", "server": "https://10.0.0.1:6443", "ca_file": None}}, []),
        (
            {"kubernetes": {"service": "a", "server": "http://127.0.0.1.example.com"}},
            [
                "discover.kubernetes.server: must begin with https://, but for a proxy on this machine: "
                "the token would be in the clear"
            ],
        ),
        ({"kubernetes": {}}, ["discover.kubernetes.service: is required"]),
        (
            {"kubernetes": {"service": "Vllm"}},
            ["discover.kubernetes.service: must be 1 to 63 small letters and digits, with '-' between them"],
        ),
        (
            {"kubernetes": {"service": "a", "port": 70000}},
            ["discover.kubernetes.port: must be a port from 1 to 65535, or the name of one"],
        ),
        (
            {"kubernetes": {"service": "a", "port": "http:8000"}},
            ["discover.kubernetes.port: must be the name of a port, such as http, or its number"],
        ),
    ],
)
def test_a_source_is(tmp_path: Path, discover: dict[str, Any], wanted: list[str]) -> None:
    assert problems(tmp_path, {"discover": discover}) == wanted


@pytest.mark.parametrize(
    ("backend", "wanted"),
    [
        ({"url": "http://e"}, ["discover: give url, urls or discover, not two of them: discover finds the addresses"]),
        ({"urls": ["http://e"]}, ["discover: give url, urls or discover, not two of them: discover finds the addresses"]),
        ({"type": "azure", "azure": {"api": "v1"}}, []),
    ],
)
def test_a_backend_with_a_source_is(tmp_path: Path, backend: dict[str, Any], wanted: list[str]) -> None:
    assert problems(tmp_path, {"discover": {"file": "engines.json"}} | backend) == wanted


@pytest.mark.parametrize(
    ("discover", "backend", "wanted"),
    [
        ({"dns": "vllm.prod", "port": 8000}, {}, []),
        ({"file": "a"}, {}, []),
        ({"dns": "_http._tcp.vllm.prod"}, {}, [f"server_name: {NAMES}"]),
        (KUBERNETES, {}, [f"server_name: {NAMES}"]),
        (KUBERNETES, {"server_name": "vllm.prod"}, []),
        (KUBERNETES, {"verify": False}, []),
    ],
)
def test_certificates_are_for_names(
    tmp_path: Path, discover: dict[str, Any], backend: dict[str, Any], wanted: list[str]
) -> None:
    assert problems(tmp_path, {"discover": {"scheme": "https", **discover}} | backend) == wanted


@pytest.mark.parametrize(
    ("discover", "name"),
    [({"dns": "vllm.prod.", "port": 8000}, "vllm.prod"), ({"dns": "_http._tcp.vllm"}, None), ({"file": "a"}, None)],
)
def test_the_name_in_dns_is_what_certificates_are_for(discover: dict[str, Any], name: str | None) -> None:
    assert DiscoverConfig(**discover).certified_name == name


def test_variables_set_it(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("routing: {backends: {main: {discover: {kubernetes: {service: vllm}}}}}")
    prefix = "LEXORA_ROUTING__BACKENDS__MAIN__DISCOVER__"
    environ = {f"{prefix}KUBERNETES__PORT": "8000", f"{prefix}MIN_INTERVAL": "2", f"{prefix}KUBERNETES__NAMESPACE": "prod"}
    found = load(str(file), environ).config.backends()["main"].discover
    assert found is not None
    assert found.kubernetes is not None
    assert (found.kubernetes.port, found.kubernetes.namespace, found.min_interval) == ("8000", "prod", 2.0)
