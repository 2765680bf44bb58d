"""The Helm chart: what it renders, that Kubernetes takes it, and that a gateway takes the configuration that is in it."""

import copy
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml
from helm_python.chart import Chart, lint, package
from helm_python.errors import HelmError
from tests.support.helm import CASES, CHART, EXPECTED, as_expected, kind, manifests, render, values
from tests.support.keys import add_key
from tests.support.process import REPOSITORY, Process
from tests.support.servers import LEXORA, Simulator, plain
from tests.support.tls import Authority

from lexora_router.config import Config
from lexora_router.version import __version__

OLDEST, NEWEST = "1.30", "1.37"
OF_THE_OPERATOR = "monitoring.coreos.com/v1"  # Prometheus', which Kubernetes has no schema of


@pytest.fixture(scope="module")
def chart() -> Chart:
    return Chart.load(CHART)


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    with Simulator() as engine:
        yield engine


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def rendered(case: str, chart: Chart) -> dict[str, str]:
    return render(values(case), chart)


def configuration(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return dict(yaml.safe_load(kind(documents, "ConfigMap")["data"]["config.yaml"]))


def pod(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return dict(kind(documents, "Deployment")["spec"]["template"]["spec"])


def test_it_renders_what_is_expected(case: str, rendered: dict[str, str]) -> None:
    assert as_expected(rendered) == (EXPECTED / f"{case}.yaml").read_text(), "python -m tests.support.helm"


def test_lint_has_nothing_to_say(case: str) -> None:
    report = lint(CHART, values(case), strict=True, namespace="llm")
    assert [each for each in report["messages"] if each["severity"] > 1] == report["errors"] == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_each_manifest(version: str, rendered: dict[str, str]) -> None:
    documents = [each for each in manifests(rendered) if each["apiVersion"] != OF_THE_OPERATOR]
    assert len(documents) > 5
    for document in documents:
        assert kubernetes_validate.validate(document, version, strict=True) == version


def test_kubernetes_would_refuse_a_mistake(rendered: dict[str, str]) -> None:
    wrong = copy.deepcopy(kind(manifests(rendered), "Deployment"))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def hook(container: dict[str, Any]) -> list[str]:
    """The command before a stop."""
    return list(container["lifecycle"]["preStop"]["exec"]["command"])


def variables(container: dict[str, Any]) -> dict[str, str]:
    """The environment of a container, with a text for each Secret."""
    made: dict[str, str] = {}
    for each in container.get("env", ()):
        text = each.get("value") or "secret-of-32-characters-or-so-0123"
        made[each["name"]] = re.sub(r"\$\((\w+)\)", lambda found: made[found[1]], text)
    return made


def mounted(documents: list[dict[str, Any]], folder: Path) -> str:
    """The configuration with its files as they would be mounted, in `folder` in place of /etc/lexora."""
    authority, text = Authority(folder), kind(documents, "ConfigMap")["data"]["config.yaml"]
    mounts = {each["mountPath"]: each["name"] for each in pod(documents)["containers"][0]["volumeMounts"]}
    volumes = {each["name"] for each in pod(documents)["volumes"]}
    assert set(mounts.values()) == volumes
    pair = authority.issue("server")
    for path, name in mounts.items():
        place = folder / path.lstrip("/").removeprefix("etc/lexora/")
        place.mkdir(parents=True)
        match name:
            case "keys":
                add_key(place / "keys.jsonl")
            case "tls":
                (place / "tls.crt").write_bytes(pair.cert.read_bytes())
                (place / "tls.key").write_bytes(pair.key.read_bytes())
                (place / "ca.crt").write_bytes(authority.ca.read_bytes())
            case "client-ca":
                (place / "ca.crt").write_bytes(authority.ca.read_bytes())
            case "config":
                (place / "config.yaml").write_text(text.replace("/etc/lexora", str(folder)))
    return str(folder / "config" / "config.yaml")


def test_the_configuration_is_one_that_a_pod_starts_with(rendered: dict[str, str], tmp_path: Path) -> None:
    documents = manifests(rendered)
    file = mounted(documents, tmp_path)
    [check] = pod(documents)["initContainers"]
    [serve] = pod(documents)["containers"]
    assert check["env"] == serve["env"] if "env" in serve else "env" not in check
    assert check["volumeMounts"] == serve["volumeMounts"]
    assert serve["args"][1:] == check["args"][1:3] == ["--config", "/etc/lexora/config/config.yaml"]
    argv = [*LEXORA, *(file if each.startswith("/etc/lexora") else each for each in check["args"])]
    done = subprocess.run(argv, env={**os.environ, **variables(check)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"not set|no effect|unknown", done.stderr), done.stderr


def test_a_gateway_with_it_answers_the_probes_and_the_hook(rendered: dict[str, str], engine: Simulator, tmp_path: Path) -> None:
    documents = manifests(rendered)
    file = mounted(documents, tmp_path)
    [serve] = pod(documents)["containers"]
    free = {f"LEXORA_SERVER__{name}": "0" for name in ("PORT", "GRPC_PORT", "ADMIN_PORT")}
    here = {"LEXORA_SERVER__HOST": "127.0.0.1", "LEXORA_ROUTING__BACKENDS__MAIN__URLS": f"[{engine.url!r}]"}
    with Process([*LEXORA, "serve", "--config", file], env={**variables(serve), **free, **here}) as gateway:
        line = plain(gateway.wait_ready(r".*\bserving\b.*").group(0))
        http, grpc = (re.search(rf'"{name}": ?"([^"]+)"', line)[1] for name in ("http", "grpc"))  # type: ignore[index]
        gateway.wait_for("endpoint_up")
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = serve[name]["httpGet"]
            assert http.startswith(f"{probe['scheme'].lower()}://")
            assert httpx.get(http + probe["path"], verify=False).status_code == 200
        command = [str(tmp_path) + each[11:] if each.startswith("/etc/lexora") else each for each in hook(serve)]
        command[command.index("--quiet") + 1] = "0"
        command[command.index("--router") + 1] = grpc.replace("127.0.0.1", "localhost")
        done = subprocess.run([*LEXORA, *command[1:]], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "no calls for 0 seconds\n"), done.stderr


def test_ports_probes_and_times_are_those_of_the_configuration(rendered: dict[str, str]) -> None:
    documents = manifests(rendered)
    config, spec = Config.model_validate({**configuration(documents), "auth": {}}), pod(documents)
    [serve] = spec["containers"]
    ports = {each["name"]: each["containerPort"] for each in serve["ports"]}
    assert ports == {"http": config.server.port, "grpc": config.server.grpc_port, "metrics": config.server.admin_port}
    assert config.server.host == "0.0.0.0"
    command = hook(serve)
    waits = float(command[command.index("--at-most") + 1])
    assert spec["terminationGracePeriodSeconds"] >= waits + config.server.drain_timeout + 10
    assert command[command.index("--router") + 1].endswith(f":{config.server.grpc_port}")
    for service in (each for each in documents if each["kind"] == "Service" and "valkey" not in each["metadata"]["name"]):
        assert {each["targetPort"] for each in service["spec"]["ports"]} <= set(ports)
        labels = kind(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()


def test_pods_can_write_nothing_and_gain_no_right(rendered: dict[str, str]) -> None:
    specs = [each["spec"] if each["kind"] == "Pod" else each["spec"]["template"]["spec"]
             for each in manifests(rendered) if each["kind"] in ("Pod", "Deployment")]  # fmt: skip
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            own = container["securityContext"]
            assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"]) == (True, False)
            assert own["capabilities"] == {"drop": ["ALL"]}


def test_rules_and_dashboards_are_those_of_deploy(chart: Chart) -> None:
    documents = manifests(render(values("production"), chart))
    groups = {each["name"]: each["rules"] for each in kind(documents, "PrometheusRule")["spec"]["groups"]}
    for name in ("recording", "alerts"):
        [own] = yaml.safe_load((REPOSITORY / "deploy/prometheus" / f"{name}.yml").read_text())["groups"]
        assert groups.pop(f"{own['name']}-{name}") == own["rules"]
    assert groups == {}
    for path in sorted((REPOSITORY / "deploy/grafana").glob("*.json")):
        config_map = kind(documents, "ConfigMap", f"lexora-{path.stem}")
        assert json.loads(config_map["data"][f"lexora-{path.name}"]) == json.loads(path.read_text())
    monitor = kind(documents, "ServiceMonitor")["spec"]
    assert monitor["endpoints"][0]["relabelings"] == [{"targetLabel": "job", "replacement": "lexora"}]
    labels = kind(documents, "Service", "lexora-metrics")["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()


def test_the_packed_chart_has_the_files_that_it_links_to(tmp_path: Path, chart: Chart) -> None:
    packed = Chart.load(package(CHART, destination=tmp_path))
    given = values("production")
    assert render(given, packed) == render(given, chart)
    assert not [each["name"] for each in packed.files if each["name"].startswith("ci/")]


def test_the_chart_is_for_this_version(chart: Chart) -> None:
    assert chart.metadata["appVersion"] == __version__


KEYS = {"secret": "keys", "cacheSalt": {"secret": "salt"}}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"replica": 3}, "replica"),
        ({"replicas": 0}, "minimum"),
        ({"image": {"digest": "sha256:abc"}}, "digest"),
        ({"secretEnv": {"OPENAI_API_KEY": {"secret": "openai"}}}, "key"),
        ({"networkPolicy": {"egres": []}}, "egres"),
        ({"state": {"url": "valkey.example:6379"}}, "url"),
        ({"state": {"url": "valkey://a:1"}, "valkey": {"enabled": True}}, "two stores"),
        ({"tls": {"secret": "cert"}}, "tls.serverName is missing"),
        ({"keys": {"secret": "keys"}}, "keys.cacheSalt.secret is missing"),
        ({"config": {"auth": {"mode": "jwt"}}}, "keys.cacheSalt.secret is missing"),
        ({"autoscaling": {"enabled": True, "callsInFlight": None}}, "autoscaling needs one of"),
    ],
)
def test_values_that_cannot_work_are_refused(given: dict[str, Any], complaint: str, chart: Chart) -> None:
    with pytest.raises(HelmError, match=re.escape(complaint)):
        render(given, chart)


def test_what_the_values_say_of_the_configuration_counts(chart: Chart) -> None:
    server = {"port": 9000, "admin_port": 9001, "drain_timeout": 7.5, "host": "::"}
    documents = manifests(render({"config": {"server": server, "auth": {"mode": "keys+jwt"}}, "keys": KEYS}, chart))
    config = configuration(documents)
    assert config["server"] == {**server, "grpc_port": 50051}
    assert config["auth"]["mode"] == "keys+jwt"
    assert pod(documents)["terminationGracePeriodSeconds"] == 60 + 8 + 15


def test_clients_that_have_to_show_a_certificate_leave_nothing_to_ask_for_kubelet(chart: Chart) -> None:
    tls = {"secret": "cert", "serverName": "a.example", "clientCa": {"secret": "ca"}}
    documents = manifests(render({"tls": tls, "config": {"server": {"tls": {"client_auth": "required"}}}}, chart))
    [serve] = pod(documents)["containers"]
    assert {json.dumps(serve[name]["tcpSocket"]) for name in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        '{"port": "http"}'
    }
    assert serve["lifecycle"]["preStop"] == {"sleep": {"seconds": 5}}


def test_a_pod_watches_engines_only_where_it_is_to(chart: Chart) -> None:
    documents = manifests(render({"discovery": {"namespaces": ["vllm"]}}, chart))
    assert pod(documents)["automountServiceAccountToken"] is True
    role = kind(documents, "Role", "lexora-discovery")
    assert role["metadata"]["namespace"] == "vllm"
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    ]
