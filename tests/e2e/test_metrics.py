"""/metrics of real processes, by Prometheus' own tool."""

import gzip
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic

from tests.e2e.conftest import MODEL
from tests.support.process import Process
from tests.support.promtool import PROMTOOL, needs_promtool
from tests.support.servers import LEXORA, Gateway, Simulator, base_config, metric, plain, write_config
from tests.support.wire import Response, exchange, request

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


def serve_some(http: httpx.Client, sim: Simulator) -> None:
    """Calls of every sort: whole, streamed, refused, failed, for nobody."""
    http.post("/v1/chat/completions", json=CHAT).raise_for_status()
    http.post("/v1/chat/completions", json=CHAT | {"stream": True}).raise_for_status()
    assert http.post("/v1/chat/completions", json=CHAT | {"temperature": -5}).status_code == 400
    sim.fault("status;code=500", times=1)
    assert http.post("/v1/chat/completions", json=CHAT).status_code == 500
    assert http.post("/v1/chat/completions", json={"messages": []}).status_code == 400


OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"  # as Prometheus asks


def check_scrapes(url: str, name: str) -> None:
    """Whatever a scraper accepts, it gets that and the same metrics. `name` is a counter or gauge that is there."""
    plain = wire(url, {})
    assert plain.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert plain.header("content-encoding") is None
    families = {"": set(parsed(plain.body.decode(), classic))}
    for accept in ("", OPENMETRICS):
        for encoding in ("", "gzip", "br, gzip;q=0.8"):
            answer = wire(url, {"accept": accept, "accept-encoding": encoding})
            assert answer.header("content-encoding") == ("gzip" if encoding else None)
            text = (gzip.decompress(answer.body) if encoding else answer.body).decode()
            kind = str(answer.header("content-type"))
            assert kind.startswith("application/openmetrics-text; version=1.0.0" if accept else "text/plain; version=0.0.4")
            assert text.endswith("# EOF\n") == bool(accept)
            families[accept] = set(parsed(text, openmetrics if accept else classic))
            assert name in families[accept]
            assert not encoding or len(answer.body) < len(text) / 3
    # The names of counters have their _total in one of the formats only.
    assert {each.removesuffix("_total") for each in families[""]} == {
        each.removesuffix("_total") for each in families[OPENMETRICS]
    }


def wire(url: str, headers: dict[str, str]) -> Response:
    base, _, path = url.rpartition("/")
    return exchange(base, request(f"/{path}", method="GET", headers={"content-type": "", "connection": "close"} | headers))


def parsed(text: str, parse: Callable[[str], Iterable[Metric]]) -> list[str]:
    """The names of the families; the parser refuses what is not of its format."""
    return [family.name for family in parse(text)]


def test_scrapers_get_the_format_and_the_compression_they_ask_for(
    gateway: Gateway, http: httpx.Client, sim: Simulator, tmp_path: Path
) -> None:
    serve_some(http, sim)
    check_scrapes(f"{gateway.http}/metrics", "lexora_active_requests")
    arguments = ["gateway", "--router", gateway.grpc, "--port", "0"]
    with Process([*LEXORA, *arguments], cwd=tmp_path) as facade:
        check_scrapes(f"{facade.wait_for(r'serving.*http=(http://[^ ]+)').group(1)}/metrics", "process_open_fds")


@needs_promtool
def test_promtool_finds_nothing_to_complain_of(gateway: Gateway, http: httpx.Client, sim: Simulator) -> None:
    serve_some(http, sim)
    text = http.get("/metrics").text
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_stream_has_a_time_per_token(gateway: Gateway, http: httpx.Client) -> None:
    def count(name: str) -> float:
        return metric(http.get("/metrics").text, name, backend="main", model=MODEL)

    before = count("lexora_time_per_output_token_seconds_count")
    http.post("/v1/chat/completions", json=CHAT | {"stream": True}).raise_for_status()
    assert count("lexora_time_per_output_token_seconds_count") == before + 1
    assert 0 < count("lexora_time_per_output_token_seconds_sum") < count("lexora_time_to_first_token_seconds_sum") + 10


def test_the_event_loop_is_watched(gateway: Gateway, http: httpx.Client) -> None:
    text = http.get("/metrics").text
    assert metric(text, "lexora_event_loop_lag_seconds_count") >= 0
    assert re.search(r'^lexora_build_info\{python="3\.\d+\.\d+",version="[\d.]+"\} 1\.0$', text, re.M)


def _takes(url: str, headers: dict[str, str]) -> bool:
    """Whether a request is answered as asked; one that is cut off while it is sent is not."""
    try:
        return httpx.get(url, headers=headers, verify=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("on", [True, False])
def test_a_router_alone_has_metrics_on_a_port_of_its_own(on: bool, sim: Simulator, tmp_path: Path) -> None:
    config = base_config(main={"url": sim.url})
    if not on:
        config["server"]["metrics_port"] = None
    with Process([*LEXORA, "router", "--config", str(write_config(config, tmp_path))]) as router:
        line = plain(router.wait_ready(r".*\bserving\b.*").group(0))
        found = re.search(r"metrics=(http://\S+)", line)
        if not on:
            assert found is None
            return
        assert found is not None
        check_scrapes(found.group(1), "lexora_active_requests")
        answer = httpx.get(found.group(1), verify=False)
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert "lexora_active_requests 0.0" in answer.text
        assert httpx.get(found.group(1).removesuffix("metrics"), verify=False).status_code == 404
        assert not _takes(found.group(1), {"x": "y" * 4_000_000}), "the head of a request has a bound"
        assert router.stop() == 0


def test_a_metrics_port_that_is_taken(gateway: Gateway, tmp_path: Path) -> None:
    taken = int(gateway.http.rpartition(":")[2])
    config = base_config()
    config["server"]["metrics_port"] = taken
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(config))
    done = subprocess.run([*LEXORA, "router", "--config", str(file)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{taken}" in done.stderr
    assert "server.metrics_port (--metrics-port)" in done.stderr
