"""An API server of Kubernetes as far as EndpointSlices go: lists in pages, watches with bookmarks, and what breaks them."""

import json
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

SERVICE = "kubernetes.io/service-name"


def pod(
    address: str, *, ready: bool | None = True, serving: bool | None = None, terminating: bool | None = None
) -> dict[str, Any]:
    """One endpoint of a slice."""
    return {"addresses": [address], "conditions": {"ready": ready, "serving": serving, "terminating": terminating}}


class KubeApi:
    """`put` and `remove` change slices, and every open watch hears of it. `asked` are the queries that came.

    `token` is what must be shown; None: anything. With `status` every request is answered by that.
    """

    def __init__(self, security: ssl.SSLContext | None = None) -> None:
        self.token: str | None = None
        self.status = 200
        self.asked: list[dict[str, str]] = []
        self.slices: dict[str, dict[str, Any]] = {}
        self._version = 100
        self._oldest = 0  # versions before that are forgotten
        self._events: list[tuple[int, dict[str, Any]]] = []
        self._news = threading.Condition()
        self._generation = 0  # of watches: those of earlier ones are to end
        self._closed = False
        self._server = _Server(("127.0.0.1", 0), self, security)
        self.url = f"{'http' if security is None else 'https'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def lists(self) -> int:
        """First pages of lists that were asked for."""
        return sum("watch" not in query and "continue" not in query for query in self.asked)

    @property
    def watches(self) -> list[str]:
        """The versions that watches were to begin at."""
        return [query["resourceVersion"] for query in self.asked if "watch" in query]

    def put(self, name: str, *pods: dict[str, Any], port: int, family: str = "IPv4", ports: list[Any] | None = None) -> None:
        """Have a slice with these endpoints."""
        self._change(
            "MODIFIED" if name in self.slices else "ADDED",
            name,
            {
                "metadata": {"name": name, "labels": {SERVICE: "vllm"}},
                "addressType": family,
                "endpoints": list(pods),
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}] if ports is None else ports,
            },
        )

    def remove(self, name: str) -> None:
        """Have that slice no more."""
        self._change("DELETED", name, self.slices[name])

    def bookmark(self) -> None:
        """A sign of life with the newest version."""
        with self._news:
            self._version += 1
            self._events.append(
                (self._version, {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self._version)}}})
            )
            self._news.notify_all()

    def drop_watches(self) -> None:
        """Cut every watch off, as a load balancer does."""
        with self._news:
            self._generation += 1
            self._news.notify_all()

    def forget(self) -> None:
        """Compact: versions up to now can be watched no more, and open watches end with 410."""
        with self._news:
            self._version += 1
            self._oldest = self._version
            self._events.append(
                (self._version, {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}})
            )
            self._news.notify_all()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._news:
            self._closed = True
            self._news.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _change(self, kind: str, name: str, slice_: dict[str, Any]) -> None:
        with self._news:
            self._version += 1
            slice_ = json.loads(json.dumps(slice_))
            slice_["metadata"]["resourceVersion"] = str(self._version)
            if kind == "DELETED":
                del self.slices[name]
            else:
                self.slices[name] = slice_
            self._events.append((self._version, {"type": kind, "object": slice_}))
            self._news.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], api: KubeApi, security: ssl.SSLContext | None) -> None:
        self.api = api
        super().__init__(address, _Handler)
        if security is not None:
            self.socket = security.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        api, parts = self.server.api, urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        api.asked.append(query | {"path": parts.path})
        if api.status != 200:
            self._json({"code": api.status}, api.status)
        elif api.token is not None and self.headers.get("authorization") != f"Bearer {api.token}":
            self._json({"code": 401}, 401)
        elif query["labelSelector"] != f"{SERVICE}=vllm" or parts.path.split("/")[5] != "prod":
            self._json({"metadata": {"resourceVersion": "1"}, "items": None})
        elif "watch" in query:
            self._watch(int(query["resourceVersion"]))
        else:
            self._list(query)

    def _list(self, query: dict[str, str]) -> None:
        api = self.server.api
        with api._news:
            names, first = sorted(api.slices), int(query.get("continue", "0"))
            last = first + min(int(query["limit"]), 2)
            more = {"continue": str(last)} if last < len(names) else {}
            items = [api.slices[name] for name in names[first:last]]
            self._json({"metadata": {"resourceVersion": str(api._version), **more}, "items": items})

    def _watch(self, after: int) -> None:
        api = self.server.api
        with api._news:
            generation, gone = api._generation, after < api._oldest
        if gone:
            self._json({"code": 410}, 410)
            return
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while True:
            with api._news:
                while not (api._closed or generation != api._generation or api._version > after):
                    api._news.wait()
                if api._closed or generation != api._generation:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                events = [event for version, event in api._events if version > after]
                after = api._version
            for event in events:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def _json(self, body: Any, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""
