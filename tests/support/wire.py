"""A client by the letter: the bytes of the request are the test's own, and nothing is followed, retried or decoded."""

import http.client
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

DEADLINE_SECONDS = 20.0


@dataclass
class Response:
    """Status, headers as lower-case pairs, and the body without chunk framing."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The value of a header that may occur once."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, f"{name} came {len(found)} times"
        return found[0] if found else None


def connect(base: str, seconds: float = DEADLINE_SECONDS) -> socket.socket:
    """A connection to the server of a URL or to host:port."""
    parts = urlsplit(base if "//" in base else f"//{base}")
    connection = socket.create_connection((parts.hostname, parts.port), timeout=seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request(path: str, body: bytes = b"", *, method: str = "POST", headers: dict[str, str] | None = None) -> bytes:
    """The bytes of a request with a content-length; JSON unless `headers` say otherwise ("" leaves a header out)."""
    given = {"host": "gateway", "content-type": "application/json", "content-length": str(len(body))} | (headers or {})
    lines = [f"{name}: {value}\r\n" for name, value in given.items() if value]
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1") + body


def exchange(base: str, data: bytes, seconds: float = DEADLINE_SECONDS) -> Response:
    """Send these bytes on a new connection and read one response."""
    with connect(base, seconds) as connection:
        connection.sendall(data)
        return read_response(connection)


def read_response(connection: socket.socket) -> Response:
    """Read one response to its end."""
    with http.client.HTTPResponse(connection) as answer:
        answer.begin()
        headers = [(name.lower(), value) for name, value in answer.getheaders()]
        return Response(answer.status, headers, answer.read())


def post(base: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> Response:
    """POST a body on a new connection."""
    return exchange(base, request(path, body, headers={"connection": "close"} | (headers or {})))


def wait_until(done: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Ask again until the answer is true, and return it; fails after `seconds`."""
    until = time.monotonic() + seconds
    while True:
        found = done()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.005)


def gauges(base: str) -> dict[str, float]:
    """Every gauge of the gateway that must be back to zero when nothing is under way, those that are not zero."""
    from tests.support.servers import metric

    with httpx.Client(base_url=base, timeout=DEADLINE_SECONDS, verify=False) as client:
        stats = client.get("/stats").raise_for_status().json()
        metrics = client.get("/metrics").raise_for_status().text
    found = {
        "lexora_active_requests": metric(metrics, "lexora_active_requests"),
        "lexora_endpoint_in_flight": metric(metrics, "lexora_endpoint_in_flight"),
        "active_requests": float(stats["active_requests"]),
        "in_flight": float(sum(stats["in_flight"].values())),
    }
    assert "lexora_active_requests 0" in metrics or found["lexora_active_requests"], "the gauge is missing"
    return {name: value for name, value in found.items() if value}


def wait_idle(base: str, seconds: float = 20.0) -> None:
    """Return when every gauge is zero; fails after `seconds`."""
    wait_until(lambda: not gauges(base), f"gauges at zero, not {gauges(base)}", seconds)
