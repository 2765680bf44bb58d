"""Where spans go: the section, OpenTelemetry's own variables under it, and what is said of mistakes."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from lexora_router.config import TelemetryConfig
from lexora_router.config.load import ConfigError, Loaded, load
from lexora_router.config.telemetry import pairs

HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://here:4317"}


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str = "", **environ: str) -> Loaded:
    Path("c.yaml").write_text(text, encoding="utf-8")
    return load("c.yaml", environ)


def problems(text: str = "", **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        loaded(text, **environ)
    return list(map(str, raised.value.problems))


def test_it_is_off() -> None:
    assert loaded().config.telemetry == TelemetryConfig()
    assert TelemetryConfig().otlp_endpoint is None


def test_the_standard_variables_stand_in() -> None:
    telemetry = loaded(**HERE, OTEL_SERVICE_NAME="gateway").config.telemetry
    assert (telemetry.otlp_endpoint, telemetry.service_name) == ("http://here:4317", "gateway")


@pytest.mark.parametrize(
    ("text", "environ", "endpoint"),
    [
        ("telemetry: {otlp_endpoint: 'http://file:4317'}", {}, "http://file:4317"),
        ("telemetry: {sample_ratio: 0.5}", {}, "http://here:4317"),
        ("telemetry:", {}, "http://here:4317"),
        ("telemetry: {otlp_endpoint: 'http://file:4317'}", {"LEXORA_TELEMETRY__OTLP_ENDPOINT": "http://own:1"}, "http://own:1"),
        ("", {"LEXORA_TELEMETRY__OTLP_ENDPOINT": "http://own:1"}, "http://own:1"),
        ("telemetry: {otlp_endpoint: null}", {}, None),
        ("telemetry: {otlp_endpoint: 'http://file:4317'}", {"OTEL_SDK_DISABLED": "TRUE"}, None),
    ],
)
def test_the_file_and_our_own_variables_win(text: str, environ: dict[str, str], endpoint: str | None) -> None:
    assert loaded(text, **HERE, **environ).config.telemetry.otlp_endpoint == endpoint


def test_an_empty_variable_is_none() -> None:
    assert loaded(OTEL_EXPORTER_OTLP_ENDPOINT=" ").config.telemetry.otlp_endpoint is None


def test_mistakes_name_the_variable() -> None:
    assert problems(OTEL_EXPORTER_OTLP_ENDPOINT="here:4317") == [
        "OTEL_EXPORTER_OTLP_ENDPOINT: telemetry.otlp_endpoint: must begin with http:// or https://"
    ]
    assert problems(**HERE, OTEL_EXPORTER_OTLP_HEADERS="secret") == [
        "OTEL_EXPORTER_OTLP_HEADERS: telemetry.otlp_endpoint: must be written as name=value,name=value"
    ]
    assert problems(**HERE, OTEL_EXPORTER_OTLP_CERTIFICATE="no.pem") == [
        "OTEL_EXPORTER_OTLP_CERTIFICATE: telemetry.ca_file: cannot be read: No such file or directory"
    ]


@pytest.mark.parametrize("ratio", ["-0.1", "1.1", ".nan"])
def test_a_share_is_a_share(ratio: str) -> None:
    assert problems(f"telemetry: {{sample_ratio: {ratio}}}")[0].startswith("c.yaml:1: telemetry.sample_ratio: must be")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    (problem,) = problems("telemetry: {otlp_endpoint: 'http://here:4317'}")
    assert problem == (
        "c.yaml:1: telemetry.otlp_endpoint: needs a package that is not installed: pip install '.[otel]' in a clone of Lexora"
    )
    assert loaded("telemetry: {sample_ratio: 0.5}").config.telemetry.otlp_endpoint is None


def test_another_protocol_is_warned_of() -> None:
    assert loaded(**HERE, OTEL_EXPORTER_OTLP_PROTOCOL="grpc").warnings == ()
    (warning,) = loaded(**HERE, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf").warnings
    assert "only grpc is spoken" in warning
    assert loaded(OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf").warnings == ()


def test_pairs() -> None:
    assert pairs("", headers=True) == {}
    assert pairs("Api-Key=a%20b, second = c=d ,", headers=True) == {"api-key": "a b", "second": "c=d"}
    assert pairs("Key=%C3%A9", headers=False) == {"Key": "é"}


@pytest.mark.parametrize("text", ["secret", "=secret", "a b=secret", "a=secret%0A", "a=secret%C3%A9", "é=secret"])
def test_what_no_header_can_carry(text: str) -> None:
    with pytest.raises(ValueError, match="must") as raised:
        pairs(text, headers=True)
    assert "secret" not in str(raised.value)


def test_too_many_pairs() -> None:
    with pytest.raises(ValueError, match="more than"):
        pairs(",".join(f"a{n}=1" for n in range(1000)), headers=False)
