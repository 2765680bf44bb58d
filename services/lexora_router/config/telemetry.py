"""Traces and metrics over OpenTelemetry's protocol (OTLP): the section, and the standard variables that stand in for its keys.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and .../configuration/sdk-environment-variables/
"""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from lexora_router.config.positions import Tree
from lexora_router.config.problems import Path, Where
from lexora_router.config.section import Section
from lexora_router.config.values import Flag, Ratio, Seconds, Text, Url

SECTION = "telemetry"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
RESOURCE = "OTEL_RESOURCE_ATTRIBUTES"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
DISABLED = "OTEL_SDK_DISABLED"
# A key of the file, or its LEXORA_ variable, wins over these.
_STANDARD = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "otlp_endpoint",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "ca_file",
    "OTEL_SERVICE_NAME": "service_name",
}
_PACKAGE = "opentelemetry.exporter.otlp.proto.grpc"
_HEADER = re.compile(r"[a-z0-9_.-]{1,256}")
_MOST = 128


class TelemetryConfig(Section):
    """Where spans and metrics go. Off without an endpoint."""

    otlp_endpoint: Url | None = None  # of a collector, for gRPC; https is TLS
    ca_file: Text | None = None
    service_name: Text | None = None  # default: lexora
    sample_ratio: Ratio = 1.0  # of the calls whose client has not decided itself
    capture_prompts: Flag = False
    metrics_interval: Seconds | None = 60.0  # None: traces only


def apply_standard(environ: Mapping[str, str], tree: Tree) -> None:
    """Lay OpenTelemetry's own variables under the file and `LEXORA_*`; an empty one counts as unset."""
    section = tree.data.get(SECTION) or {}
    if not isinstance(section, dict):
        return  # reported where it is validated
    if environ.get(DISABLED, "").strip().lower() == "true":
        section = section | {"otlp_endpoint": None}
    else:
        for variable, key in _STANDARD.items():
            if (value := environ.get(variable, "").strip()) and key not in section:
                section = section | {key: value}
                tree.origins[SECTION, key] = Where(variable, variable=True)
    if section:
        tree.data[SECTION] = section


def check_telemetry(config: TelemetryConfig, environ: Mapping[str, str], tree: Tree) -> None:
    """Note what would keep an endpoint that is set from being used: a missing package, or variables that say nothing."""
    if config.otlp_endpoint is None:
        return
    path: Path = (SECTION, "otlp_endpoint")
    if not _installed():
        message = "needs a package that is not installed: pip install '.[otel]' in a clone of Lexora"
        tree.fail(tree.where(path), message, path)
    for variable in (HEADERS, RESOURCE):
        try:
            pairs(environ.get(variable, ""), headers=variable == HEADERS)
        except ValueError as error:
            tree.fail(Where(variable, variable=True), str(error), path)


def telemetry_warnings(config: TelemetryConfig, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what is probably not meant."""
    protocol = environ.get(PROTOCOL, "").strip()
    if config.otlp_endpoint is not None and protocol not in ("", "grpc"):
        yield f"{PROTOCOL}: only grpc is spoken, usually at port 4317; {config.otlp_endpoint} must understand it"


def pairs(text: str, *, headers: bool) -> dict[str, str]:
    """Read `name=value,name=value`, values percent-encoded; raises ValueError, which repeats no value."""
    found = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = (part.strip() for part in item.partition("="))
        name, value = (name.lower() if headers else name), unquote(value)
        if not sign or not name:
            raise ValueError("must be written as name=value,name=value")
        if headers and not (_HEADER.fullmatch(name) and value.isascii() and value.isprintable()):
            raise ValueError("a header has a letter that it must not have")
        found[name] = value
    if len(found) > _MOST:
        raise ValueError(f"has more than {_MOST} entries")
    return found


def _installed() -> bool:
    try:
        return importlib.util.find_spec(_PACKAGE) is not None
    except ModuleNotFoundError:
        return False
