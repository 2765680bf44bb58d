"""An engine in a thread that answers every POST with the bytes it is given, and keeps what it got.

Unlike RawServer it needs no event loop, so that one gateway process can be tested against it by a whole module.
"""

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support.raw_server import RawRequest, reply

Answer = Callable[[socket.socket, RawRequest], None]
DEADLINE_SECONDS = 5.0


class ScriptedEngine:
    """`answer` is the raw response to every POST, or a function that writes to the connection itself.

    Without `reads_bodies` an answer begins as soon as the head of its request is there.
    `/health` and `/v1/models` answer as a well engine would, everything else by GET is in `pages` (bytes or a function) or 404.
    """

    def __init__(self, *models: str, security: ssl.SSLContext | None = None) -> None:
        self._security = security
        self.certificates: list[str] = []  # serial numbers of those that clients have shown
        listing = {"object": "list", "data": [{"id": model, "object": "model", "owned_by": "scripted"} for model in models]}
        self.pages: dict[str, bytes | Answer] = {"/health": reply(b"{}"), "/v1/models": reply(json.dumps(listing).encode())}
        self.answer: bytes | Answer = reply(b'{"object":"nothing"}')
        self.reads_bodies = True
        self.requests: list[RawRequest] = []
        self.gets: list[RawRequest] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'http' if security is None else 'https'}://127.0.0.1:{self.port}"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._open)

    @property
    def last(self) -> RawRequest:
        """The POST that came last."""
        return self.requests[-1]

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(DEADLINE_SECONDS)
        for thread in self._threads:
            thread.join(DEADLINE_SECONDS)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._open.add(connection)
                self._threads = [each for each in self._threads if each.is_alive()]
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        if self._security is not None:
            plain = connection
            try:
                connection = self._security.wrap_socket(plain, server_side=True)
            except OSError:
                plain.close()
                with self._lock:
                    self._open.discard(plain)
                return
            with self._lock:
                self._open.discard(plain)
                self._open.add(connection)
            shown = connection.getpeercert()
            self.certificates.append(str(shown["serialNumber"]) if shown else "")
        try:
            with connection.makefile("rb") as reader, contextlib.suppress(OSError, EOFError):
                while True:
                    request = _read(reader.readline, reader.read if self.reads_bodies else lambda _: b"")
                    if not self._answer(connection, request):
                        return
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _answer(self, connection: socket.socket, request: RawRequest) -> bool:
        if request.method == "GET":
            self.gets.append(request)
            answer = self.pages.get(request.target, reply(b"{}", status="404 Not Found"))
        else:
            self.requests.append(request)
            answer = self.answer
        if not isinstance(answer, bytes):
            answer(connection, request)
            return False
        connection.sendall(answer)
        head = answer.partition(b"\r\n\r\n")[0].lower()
        return b"connection: close" not in head and (b"\r\ncontent-length:" in head or b"\r\ntransfer-encoding:" in head)


def until_closed(connection: socket.socket) -> float:
    """Wait for the peer to leave; the instant (time.monotonic) at which it did. Fails when it stays."""
    connection.settimeout(DEADLINE_SECONDS)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        raise AssertionError("the peer did not leave") from None
    except ConnectionError:
        pass
    return time.monotonic()


def _read(readline: Callable[[], bytes], read: Callable[[int], bytes]) -> RawRequest:
    first = readline()
    if not first:
        raise EOFError
    method, target, _ = first.decode("latin-1").split(" ")
    request = RawRequest(method, target)
    while line := readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        request.headers.append((name, value.strip()))
    request.body = read(int(request.header("content-length") or 0))
    return request
