"""Scrape configuration, rules and alerts, by Prometheus' own tool."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.support.process import REPOSITORY
from tests.support.promtool import PROMTOOL, needs_promtool
from tests.support.tls import Authority

from lexora_router.config import Config
from lexora_router.config.tls import TlsConfig
from lexora_router.process.app import RouterApp
from lexora_router.process.server_tls import ServerTls

FOLDER = REPOSITORY / "deploy" / "prometheus"
GRAFANA = REPOSITORY / "deploy" / "grafana"
METRIC = re.compile(r"\b(lexora_\w+|lexora:[\w:]+|process_\w+)")


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, cwd=FOLDER, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules(name: str) -> list[dict[str, object]]:
    return [rule for group in yaml.safe_load((FOLDER / name).read_text())["groups"] for rule in group["rules"]]


async def samples(folder: Path) -> set[str]:
    """Names of all samples that /metrics may have, with every label."""
    text = RouterApp(Config.model_validate({"state": {"url": "valkey://localhost"}})).metrics("")[0].decode()
    shown = Authority(folder).issue("server")
    found = {metric.name for metric in ServerTls(TlsConfig(cert=str(shown.cert), key=str(shown.key))).collect()}
    for family in text_string_to_metric_families(text):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
        found |= {family.name + suffix for suffix in suffixes}
    return found


@needs_promtool
def test_the_scrape_configuration_is_valid() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_every_alert_has_a_test_and_a_word_in_the_manual() -> None:
    alerts = {str(rule["alert"]) for rule in rules("alerts.yml")}
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for each in tests for case in each.get("alert_rule_test", ()) if case.get("exp_alerts")}
    assert fired == alerts
    manual = (REPOSITORY / "docs" / "operations.md").read_text()
    assert set(re.findall(r"^\| `(Lexora\w+)` \|", manual, re.M)) == alerts


async def test_rules_and_dashboards_refer_to_metrics_that_exist(tmp_path: Path) -> None:
    recorded = {str(rule["record"]) for rule in rules("recording.yml")}
    known = await samples(tmp_path) | recorded
    texts = [str(rule["expr"]) for name in ("recording.yml", "alerts.yml") for rule in rules(name)]
    texts += [path.read_text() for path in sorted(GRAFANA.glob("*.json"))]
    named = {name for text in texts for name in METRIC.findall(text)}
    assert len(named) > 20
    assert named - known == set()


@pytest.mark.parametrize("name", ["recording.yml", "alerts.yml"])
def test_no_series_is_made_of_what_a_client_chooses(name: str) -> None:
    assert not any("user" in str(rule.get("labels", "")) for rule in rules(name))
