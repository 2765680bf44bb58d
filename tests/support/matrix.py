"""Runs the retry and fallback matrix through real processes and writes it down as a table.

`python -m tests.support.matrix --write` replaces the golden table; nothing else does.
"""

import contextlib
import json
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from tests.support import wire
from tests.support.black_hole import no_connection
from tests.support.matrix_cases import (
    KINDS,
    ROUTES,
    TOKENS,
    VARIANTS,
    Kind,
    Variant,
    backend_name,
    config,
    once_model,
    route_names,
)
from tests.support.process import REPOSITORY
from tests.support.servers import Gateway, Simulator

GOLDEN = REPOSITORY / "tests" / "data" / "golden_matrix.txt"
CHAT = "/v1/chat/completions"
SHAPES = ("unary", "stream")
_SERVED = sorted(
    {backend_name(route, kind) for kind in KINDS.values() for route in ROUTES}
    | {once_model(variant) for variant in VARIANTS}
    | {"spare", "worse"}
)
_WIDTHS = (7, 8, 50, 12, 7, 42)
_HEAD = ("route", "answer", "the client sees", "backend", "tries", "engines that were asked", "fallback")


@dataclass(frozen=True)
class Row:
    """One case. `engines` are those that saw the call, in order; `tries` and `fallback` are what the answer's headers say."""

    variant: str
    kind: str
    route: str
    shape: str
    client: str
    backend: str
    tries: str
    engines: str
    fallback: str

    def cells(self) -> tuple[str, ...]:
        """The row as it is written, under what the table's heading says."""
        return (self.route, self.shape, self.client, self.backend, self.tries, self.engines, self.fallback)


def table(rows: list[Row]) -> str:
    """All rows by settings; kinds of which the same becomes stand together, and so do unary and streamed answers."""
    lines = ["What becomes of a call. tests/support/matrix_cases.py has the kinds of failure, the engines and the routes."]
    for variant in VARIANTS:
        lines += ["", f"== {variant.name}: {variant.text}"]
        blocks: dict[str, list[str]] = {}
        for name in variant.kinds:
            block = _block([row for row in rows if (row.variant, row.kind) == (variant.name, name)])
            blocks.setdefault(block, []).append(f"-- {name}: {KINDS[name].text}")
        for block, names in blocks.items():
            lines += ["", *names, block]
    return "\n".join(lines) + "\n"


def _block(rows: list[Row]) -> str:
    merged = []
    for route in dict.fromkeys(row.route for row in rows):
        found = [row for row in rows if row.route == route]
        same = len({replace(row, shape="both") for row in found}) == 1
        merged += [replace(found[0], shape="both")] if same else found
    return "\n".join(_line(cells) for cells in (_HEAD, *(row.cells() for row in merged)))


def _line(cells: tuple[str, ...]) -> str:
    *padded, last = cells
    return "".join(f"{cell:<{width}}" for cell, width in zip(padded, _WIDTHS, strict=True)) + last


def run() -> list[Row]:
    """Every case, through one gateway for each variant; about half a minute."""
    with contextlib.ExitStack() as stack:
        return _Matrix(stack).run()


class _Matrix:
    def __init__(self, stack: contextlib.ExitStack) -> None:
        served = [argument for model in _SERVED for argument in ("--model", model)]
        # Kept connections that end as they are used come by chance, and have a test of their own, test_stale_connections.
        timing = ("--itl-ms", "15", "--no-keep-alive")
        self._engines = {
            name: stack.enter_context(Simulator(*timing, *served, model="any")) for name in ("first", "second", "spare", "dead")
        }
        urls = {name: engine.url for name, engine in self._engines.items()} | {"away": stack.enter_context(no_connection())}
        self._gateways: dict[str, Gateway] = {}
        for variant in VARIANTS:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._gateways[variant.name] = stack.enter_context(Gateway(config(variant, urls), folder))
        self._admin = stack.enter_context(httpx.Client(verify=False))
        self._pool = stack.enter_context(ThreadPoolExecutor(len(VARIANTS) * len(ROUTES)))
        self._stack = stack
        self._whole = ""

    def run(self) -> list[Row]:
        self._whole = _content(wire.post(self._engines["spare"].url, CHAT, _body("spare", "unary")))
        for variant in VARIANTS:
            for name in ("duo", "both"):
                if name in variant.routes:
                    self._make_second_busy(variant, name)
            if "duo" in variant.routes and "refused" in variant.kinds:
                self._make_second_busy(variant, backend_name("duo", KINDS["refused"]))
        self._engines["dead"].kill()
        found = [row for kind in KINDS.values() for shape in SHAPES for row in self._step(kind, shape)]
        return self._with_engines(found)

    def _make_second_busy(self, variant: Variant, model: str) -> None:
        """Keep a stream running on `second`, so that of two endpoints the other one, which is idle, is asked first."""
        gateway, second = self._gateways[variant.name], self._engines["second"].url
        more = {"stream": True, "max_tokens": 30_000, "ignore_eos": True, "sim_fault": "drip=50"}
        data = wire.request(CHAT, json.dumps(json.loads(_body(model, "stream")) | more).encode())

        def stream() -> socket.socket:
            connection = self._stack.enter_context(wire.connect(gateway.http))
            connection.sendall(data)
            assert connection.recv(1)
            return connection

        stray = stream()
        if not gateway.metric("lexora_endpoint_in_flight", backend=model, endpoint=second):
            stream()  # to the one that is idle
            stray.close()
        busy = [("lexora_endpoint_in_flight", second, 1.0), ("lexora_endpoint_in_flight", None, 1.0)]
        wire.wait_until(
            lambda: all(
                gateway.metric(name, backend=model, **({"endpoint": url} if url else {})) == count for name, url, count in busy
            ),
            "one stream, on the second endpoint",
        )

    def _step(self, kind: Kind, shape: str) -> list[Row]:
        """One kind in one shape on every route of every gateway at once: each route is a backend of its own."""
        self._set_faults(kind)
        cases = [(variant, name) for variant in VARIANTS if kind.name in variant.kinds for name in route_names(kind, variant)]
        return list(self._pool.map(lambda case: self._call(kind, shape, *case), cases))

    def _set_faults(self, kind: Kind) -> None:
        rules: list[tuple[str, dict[str, Any]]] = [("first", {}), ("second", {"model": "both"}), ("spare", {"model": "worse"})]
        rules += [("second", {"model": once_model(variant), "count": 1}) for variant in VARIANTS]
        for name in ("first", "second", "spare"):
            self._admin.delete(f"{self._engines[name].url}/sim/faults").raise_for_status()
        for name, rule in rules if kind.fault is not None else []:
            self._admin.post(f"{self._engines[name].url}/sim/faults", json={"fault": kind.fault} | rule).raise_for_status()

    def _call(self, kind: Kind, shape: str, variant: Variant, route: str) -> Row:
        headers = {"x-request-id": _call_id(variant.name, kind.name, route, shape)}
        if ROUTES[route].forbids:
            headers["x-lexora-fallback"] = "never"
        answer = wire.post(self._gateways[variant.name].http, CHAT, _body(backend_name(route, kind), shape), headers)
        told = [answer.header(f"x-lexora-{name}") or "-" for name in ("backend", "attempts", "fallback")]
        return Row(
            variant.name, kind.name, route, shape, _client_view(answer, kind, self._whole), told[0], told[1], "", told[2]
        )

    def _with_engines(self, rows: list[Row]) -> list[Row]:
        """Add who was asked, from the engines' own records."""
        asked: dict[str, list[tuple[float, str]]] = {}
        for name in ("first", "second", "spare"):
            for record in self._engines[name].requests(10_000):
                asked.setdefault(record["headers"].get("x-request-id", ""), []).append((record["received"], name))
        names = {call: ", ".join(name for _, name in sorted(found)) for call, found in asked.items()}
        return [replace(row, engines=names.get(_call_id(row.variant, row.kind, row.route, row.shape), "-")) for row in rows]


def _call_id(*parts: str) -> str:
    return ".".join(parts)


def _body(model: str, shape: str) -> bytes:
    fields = {"model": model, "messages": [{"role": "user", "content": "Tell me about foxes."}], "max_tokens": TOKENS}
    return json.dumps(fields | {"ignore_eos": True, "stream": shape == "stream"}).encode()


def _client_view(answer: wire.Response, kind: Kind, whole: str) -> str:
    """What the client sees, in a few words; `whole` is the text of an undisturbed answer."""
    if answer.status == 200 and "event-stream" in (answer.header("content-type") or ""):
        return f"200 {_stream_view(answer.body.decode(), whole)}"
    if answer.status == 200:
        return "200 whole" if _content(answer) == whole else f"200 odd: {answer.body!r}"
    seen = f"{answer.status} {_error_name(answer.body)}"
    said = _said(kind)
    if said is not None and seen == f"{said['code']} engine's own {said['code']}":
        assert answer.header("retry-after") == said.get("retry_after"), "the hint is part of the engine's answer"
        return "the engine's error as it is"
    return seen


def _said(kind: Kind) -> dict[str, str] | None:
    """The options of a kind that is an error status."""
    name, *options = (kind.fault or "").split(";")
    return dict(option.split("=") for option in options) if name == "status" else None


def _stream_view(body: str, whole: str) -> str:
    events = [event.removeprefix("data: ") for event in body.split("\n\n")[:-1]]
    done = "[DONE]" in events
    try:
        values = [json.loads(event) for event in events if event != "[DONE]"]
    except ValueError:
        return f"with an event that is no JSON, {'whole else' if done else body}"
    text = "".join(choice["delta"].get("content") or "" for value in values for choice in value.get("choices", ()))
    failed = ["error" in value for value in values]
    assert whole.startswith(text), "text that the engine did not say"
    assert sum(failed) == (not done), f"a stream ends with its end mark or with one error: {body}"
    if done:
        return "whole" if text == whole and events[-1] == "[DONE]" else f"odd: {body}"
    assert failed[-1], f"something came after the error: {body}"
    part = "part" if text else "no text"
    return f"{part}, then {_error_name(json.dumps(values[-1]).encode())}"


def _error_name(body: bytes) -> str:
    """The code of Lexora's own error, or whose the error is."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"no error: {body[:60]!r}"
    return f"{error['code']}" if isinstance(error["code"], str) else f"engine's own {error['code']}"


def _content(answer: wire.Response) -> str:
    choice = json.loads(answer.body)["choices"][0]
    return str(choice["message"]["content"]) if choice["finish_reason"] == "length" else "unfinished"


if __name__ == "__main__":
    found = table(run())
    if sys.argv[1:] == ["--write"]:
        GOLDEN.write_text(found)
    else:
        sys.stdout.write(found)
