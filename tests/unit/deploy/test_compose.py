"""The set-up of deploy/docker: its files are there and fit each other, and what they configure takes them."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.process import REPOSITORY
from tests.support.promtool import PROMTOOL, needs_promtool

from lexora_router.config import Config
from lexora_router.config.load import load

FOLDER = REPOSITORY / "deploy" / "docker"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def mounts(service: str) -> dict[str, str]:
    """Places in the container by what is mounted there."""
    return {source: target for source, target, *_ in (each.split(":") for each in SERVICES[service].get("volumes", ()))}


def test_what_is_mounted_is_there() -> None:
    for name in SERVICES:
        for source in mounts(name):
            assert (FOLDER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], (name, source)


def test_the_configuration_loads_with_either_engine() -> None:
    assert mounts("lexora")["./lexora.yaml"] == "/etc/lexora/config.yaml"
    [variable] = [name for name in SERVICES["lexora"]["environment"] if name.endswith("__URL") and "BACKENDS" in name]
    for url in ("http://sim:8000", "http://vllm:8000"):
        loaded = load(str(FOLDER / "lexora.yaml"), {variable: url})
        assert [backend.url for backend in loaded.config.routing.backends.values()] == [url]
        assert not loaded.warnings


def test_a_stop_waits_for_the_drain() -> None:
    assert int(SERVICES["lexora"]["stop_grace_period"].removesuffix("s")) > Config().server.drain_timeout + 5


def test_nothing_can_write_to_its_image_or_gain_a_right() -> None:
    for name, service in SERVICES.items():
        if name != "vllm":
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name


@needs_promtool
def test_prometheus_takes_its_files(tmp_path: Path) -> None:
    for source, target in mounts("prometheus").items():
        if target.startswith("/etc/prometheus/"):
            shutil.copy(FOLDER / source, tmp_path / Path(target).name)
    done = subprocess.run(
        [PROMTOOL, "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rule files found" in done.stdout


def test_grafana_finds_the_dashboards_and_their_data() -> None:
    [provider] = yaml.safe_load((FOLDER / "grafana/dashboards.yaml").read_text())["providers"]
    assert mounts("grafana")["../grafana"] == provider["options"]["path"]
    [source] = yaml.safe_load((FOLDER / "grafana/datasource.yaml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (REPOSITORY / "deploy/grafana" / Path(home).name).exists()


@pytest.mark.parametrize("name", ["valkey", "prometheus", "grafana"])
def test_versions_are_chosen(name: str) -> None:
    assert SERVICES[name]["image"].rpartition(":")[2] not in ("", "latest")
