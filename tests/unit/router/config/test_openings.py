from pathlib import Path
from typing import Any

import pytest
import yaml

from lexora_router.config import Config
from lexora_router.config.load import load
from lexora_router.config.openings import openings, reachable


@pytest.mark.parametrize(
    ("host", "open_"),
    [
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("localhost", False),
        ("unix:/run/lexora.sock", False),
        ("0.0.0.0", True),
        ("::", True),
        ("10.0.0.5", True),
        ("gateway.example", True),
    ],
)
def test_which_addresses_others_may_reach(host: str, open_: bool) -> None:
    assert reachable(host) is open_


@pytest.mark.parametrize(
    ("server", "mode", "named"),
    [
        ({}, "off", []),
        ({"host": "0.0.0.0"}, "off", ["no credentials", "statistics", "in the clear"]),
        ({"grpc_host": "10.0.0.1"}, "off", ["no credentials", "statistics", "in the clear"]),
        ({"admin_host": "0.0.0.0", "admin_port": 1}, "off", ["no credentials", "statistics", "in the clear"]),
        ({"admin_host": "0.0.0.0"}, "off", []),
        ({"host": "0.0.0.0"}, "keys", ["ports of calls", "in the clear"]),
        ({"host": "0.0.0.0", "admin_port": 1, "admin_grpc_port": 2}, "keys", ["in the clear"]),
        ({"host": "0.0.0.0", "admin_port": 1, "admin_grpc_port": 2, "tls": {"cert": "c.pem"}}, "keys", []),
    ],
)
def test_what_is_open_is_named(server: dict[str, Any], mode: str, named: list[str]) -> None:
    found = list(openings(Config.model_validate({"server": server, "auth": {"mode": mode}})))
    assert len(found) == len(named)
    assert all(word in line for word, line in zip(named, found, strict=True))


def test_networks_without_credentials_are_named() -> None:
    server: dict[str, Any] = {"host": "0.0.0.0", "admin_port": 1, "admin_grpc_port": 2, "tls": {"cert": "c.pem"}}
    server["trusted_proxies"] = ["192.0.2.1"]
    config = {"server": server, "auth": {"mode": "keys"}, "admin": {"allow": ["127.0.0.1/32", "10.0.0.0/8"]}}
    assert list(openings(Config.model_validate(config))) == ["operators at 10.0.0.0/8 need no credentials (admin.allow)"]


@pytest.mark.parametrize(
    ("server", "mode", "named"),
    [
        ({}, "keys", ["127.0.0.0/8", "::1/128"]),  # on loopback alone: behind a proxy of this machine
        ({"trusted_proxies": ["192.168.0.0/16"]}, "keys", []),
        ({"trusted_proxies": ["0.0.0.0/0", "10.0.0.0/8", "127.0.0.1"]}, "keys", ["0.0.0.0/0", "127.0.0.1/32"]),
        ({"trusted_proxies": []}, "keys", []),
        ({}, "off", []),
    ],
)
def test_a_proxy_of_this_machine_may_pass_clients_into_networks_without_credentials(
    server: dict[str, Any], mode: str, named: list[str]
) -> None:
    config = {"server": server, "auth": {"mode": mode}, "admin": {"allow": ["10.0.0.0/8"]}}
    found = list(openings(Config.model_validate(config)))
    assert [line.split()[3] for line in found] == named
    assert all("X-Forwarded-For" in line for line in found)


@pytest.mark.parametrize("key", ["server.trusted_proxies", "auth.forwarded"])
def test_proxies_that_are_everywhere_are_named(key: str) -> None:
    config: dict[str, Any] = {"auth": {"mode": "keys"}}
    config["server"] = {"host": "0.0.0.0", "admin_port": 1, "admin_grpc_port": 2, "tls": {"cert": "c.pem"}}
    section, name = key.split(".")
    config[section][name] = ["10.0.0.0/8", "0.0.0.0/0"]
    (found,) = openings(Config.model_validate(config))
    assert found.startswith("all of 0.0.0.0/0 is believed")
    assert key in found


def test_off_may_be_written_without_quotes(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("auth: {mode: off}\n")  # which YAML 1.1 reads as false
    assert load(str(file), {}).config.auth.mode == "off"


def test_one_warning_names_the_address_and_the_key(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"

    def said(config: dict[str, Any], **environ: str) -> list[str]:
        file.write_text(yaml.safe_dump(config))
        return [line for line in load(str(file), environ).warnings if "auth.mode" in line]

    everywhere = {"server": {"host": "0.0.0.0", "grpc_host": "0.0.0.0"}}
    (only,) = said(everywhere)
    assert only.endswith("server.host: any machine that reaches 0.0.0.0 may call and administer: auth.mode is off")
    assert said({}, LEXORA_SERVER__HOST="0.0.0.0") == [
        "LEXORA_SERVER__HOST: server.host: any machine that reaches 0.0.0.0 may call and administer: auth.mode is off"
    ]
    assert said(everywhere | {"auth": {"mode": "keys"}}) == []
    assert said({}) == []
