"""Addresses of the pods behind a Service of Kubernetes, by its EndpointSlices: listed once, then watched.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes has the protocol: a list has a
version, a watch from there says what has changed, and 410 means that the server has forgotten that version. Of the client
libraries the lightest brings 30 MB and none bounds what the server sends; httpx is there already.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec

from lexora_router.config.discover import DiscoverConfig, KubernetesConfig
from lexora_router.discovery.endpoint_slices import EndpointSlice, SliceList, Status, WatchEvent, addresses_of
from lexora_router.discovery.source import Found, LookFailed, address, found

PAGE = 500  # slices of a list that come at once
MAX_PAGE_BYTES = 64 * 2**20
MAX_EVENT_BYTES = 4 * 2**20  # a slice has at most 1,000 endpoints
MAX_SLICES = 1000
# The server ends a watch by itself after so long; it goes on where it was.
WATCH_SECONDS = 120
SLACK_SECONDS = 10.0
# A watch that breaks sooner is not begun again at once.
SHORT_SECONDS = 1.0
# A connection whose other side is gone is noticed after about a minute.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

_decode_list = msgspec.json.Decoder(SliceList).decode
_decode_event = msgspec.json.Decoder(WatchEvent).decode
_decode_slice = msgspec.json.Decoder(EndpointSlice).decode
_decode_status = msgspec.json.Decoder(Status).decode


class _TooOld(Exception):
    """410: what has changed since our version cannot be said any more."""


class KubernetesService:
    """The endpoints of one Service. `look` lists them the first time, and then waits for a change."""

    def __init__(
        self, settings: DiscoverConfig, service: KubernetesConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        where = "the namespace of this pod" if service.namespace is None else f"namespace {service.namespace}"
        self.what = f"kubernetes service {service.service} in {where}"
        self._settings = settings
        self._service = service
        self._clock = clock
        self._client: httpx.AsyncClient | None = None
        self._watch: _Watch | None = None
        self._version = ""  # of what is known; empty: nothing is
        self._slices: dict[str, EndpointSlice] = {}

    async def look(self) -> Found:
        """The addresses by now, or once they have changed. Raises LookFailed; then `close` has been done."""
        try:
            if self._version:
                await self._news()
            if not self._version:
                await self._list()
            return found(addresses_of(self._slices.values(), self._service.port), 0.0)
        except (TimeoutError, httpx.TimeoutException):
            await self.close()
            raise LookFailed(f"the API server does not answer within {self._settings.timeout:g} s") from None
        except httpx.HTTPError as error:
            await self.close()
            raise LookFailed(f"the API server cannot be reached: {error or type(error).__name__}") from None
        except (msgspec.DecodeError, RecursionError):
            await self.close()
            self._version = ""
            raise LookFailed("the API server's answer is not what Kubernetes answers") from None
        except LookFailed:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connections. What is known stays, and a later look goes on from there."""
        watch, self._watch = self._watch, None
        client, self._client = self._client, None
        if watch is not None:
            await watch.close()
        if client is not None:
            await client.aclose()

    # -- list

    async def _list(self) -> None:
        slices: dict[str, EndpointSlice] = {}
        after, version = "", ""
        while True:
            query = {"limit": str(PAGE)} | ({"continue": after} if after else {})
            async with asyncio.timeout(self._settings.timeout):
                try:
                    response = await self._open(query, self._settings.timeout)
                except _TooOld:
                    raise LookFailed("the list has changed while it was read", 0.0) from None
                async with contextlib.aclosing(response):
                    page = _decode_list(await _whole(response))
            slices |= {each.metadata.name: each for each in page.items or ()}
            version, after = page.metadata.resource_version, page.metadata.next
            if not after:
                break
            if len(slices) > MAX_SLICES:
                raise LookFailed(f"the service has more than {MAX_SLICES} EndpointSlices")
        self._slices, self._version = slices, version

    # -- watch

    async def _news(self) -> None:
        """Return when a slice has changed, when there was a sign of life, or without a version when it must be listed anew."""
        while True:
            try:
                if self._watch is None:
                    self._watch = await self._begin()
                events = await self._watch.events()
                for event in events:
                    self._apply(event)
            except _TooOld:
                self._version = ""
                await self._end_watch()
                return
            except httpx.TransportError:
                if self._watch is None or self._clock() - self._watch.begun < SHORT_SECONDS:
                    raise
                events = []
            if events:
                return
            # The server has ended the watch, or the connection is lost: it goes on where it was.
            short = self._clock() - self._watch.begun < SHORT_SECONDS
            await self._end_watch()
            if short:
                raise LookFailed("the API server ended the watch at once")

    async def _begin(self) -> "_Watch":
        query = {
            "watch": "true",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        return _Watch(await self._open(query, WATCH_SECONDS + SLACK_SECONDS), self._clock())

    async def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.close()

    def _apply(self, event: WatchEvent) -> None:
        if event.type == "ERROR":
            status = _decode_status(event.object)
            self._version = ""
            raise _TooOld if status.code == httpx.codes.GONE else LookFailed(f"the watch failed: {_said(status)}", 0.0)
        changed = _decode_slice(event.object)
        self._version = changed.metadata.resource_version or self._version
        if event.type == "DELETED":
            self._slices.pop(changed.metadata.name, None)
        elif event.type in ("ADDED", "MODIFIED"):
            if changed.metadata.name not in self._slices and len(self._slices) >= MAX_SLICES:
                raise LookFailed(f"the service has more than {MAX_SLICES} EndpointSlices")
            self._slices[changed.metadata.name] = changed

    # -- the API server

    async def _open(self, query: dict[str, str], seconds: float) -> httpx.Response:
        """A response that is 200, to be read and closed. Raises LookFailed, _TooOld, httpx.HTTPError."""
        if self._client is None:
            self._client = await asyncio.to_thread(self._new_client)
        namespace = self._service.namespace
        if namespace is None:
            namespace = await asyncio.to_thread(self._own_namespace)
        request = self._client.build_request(
            "GET",
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
            params={"labelSelector": f"kubernetes.io/service-name={self._service.service}"} | query,
            headers={"accept": "application/json", **await asyncio.to_thread(self._credentials)},
            timeout=httpx.Timeout(self._settings.timeout, read=seconds),
        )
        response = await self._client.send(request, stream=True)
        if response.status_code == httpx.codes.OK:
            return response
        await response.aclose()
        raise self._refusal(response, namespace)

    def _refusal(self, response: httpx.Response, namespace: str) -> Exception:
        code, service = response.status_code, self._service
        if code == httpx.codes.GONE:
            return _TooOld()
        if code == httpx.codes.UNAUTHORIZED:
            return LookFailed(f"the API server does not take the token of {service.token_file} (401)")
        if code == httpx.codes.FORBIDDEN:
            return LookFailed(
                f"the service account may not list and watch endpointslices.discovery.k8s.io in namespace {namespace} (403): "
                "give it a role that may"
            )
        after = response.headers.get("retry-after", "")
        pause = min(float(after), self._settings.max_interval) if after.isdecimal() else None
        return LookFailed(f"the API server answered {code}", pause)

    def _new_client(self) -> httpx.AsyncClient:
        """Runs in a thread: it reads files. Raises LookFailed."""
        server = self._service.server or _server_of_pod()
        try:
            tls = ssl.create_default_context(cafile=self._service.ca_file) if server.startswith("https:") else False
        except OSError as error:
            raise LookFailed(f"{self._service.ca_file} cannot be used: {error.strerror or error}") from None
        transport = httpx.AsyncHTTPTransport(verify=tls, socket_options=_KEEPALIVE, trust_env=False)
        return httpx.AsyncClient(base_url=server, transport=transport, trust_env=False)

    def _credentials(self) -> dict[str, str]:
        """Read for each request: the token is renewed about every hour. Raises LookFailed."""
        try:
            token = Path(self._service.token_file).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            if (self._service.server or "").startswith("http:"):
                return {}  # a proxy such as kubectl's
            why = getattr(error, "strerror", None) or "it is no token"
            raise LookFailed(f"{self._service.token_file} cannot be read: {why}") from None
        return {"authorization": f"Bearer {token}"}

    def _own_namespace(self) -> str:
        file = Path(self._service.token_file).with_name("namespace")
        try:
            return file.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            raise LookFailed(f"{file} cannot be read: set kubernetes.namespace") from None


class _Watch:
    """An open watch: lines of JSON, one per event. `begun` is when it was opened."""

    def __init__(self, response: httpx.Response, begun: float) -> None:
        self.begun = begun
        self._response = response
        self._pieces: AsyncIterator[bytes] = response.aiter_bytes()
        self._rest = b""

    async def events(self) -> list[WatchEvent]:
        """The next events, as many as have come; none when the server has ended the watch."""
        while True:
            piece = await anext(self._pieces, None)
            if piece is None:
                return []
            *lines, self._rest = (self._rest + piece).split(b"\n")
            if len(self._rest) > MAX_EVENT_BYTES:
                raise LookFailed(f"an event of the watch has more than {MAX_EVENT_BYTES} bytes")
            events = [_decode_event(line) for line in lines if line.strip()]
            if events:
                return events

    async def close(self) -> None:
        """End it."""
        with contextlib.suppress(httpx.HTTPError):
            await self._response.aclose()


async def _whole(response: httpx.Response) -> bytes:
    came = bytearray()
    async for piece in response.aiter_bytes():
        came += piece
        if len(came) > MAX_PAGE_BYTES:
            raise LookFailed(f"the API server answered with more than {MAX_PAGE_BYTES} bytes")
    return bytes(came)


def _server_of_pod() -> str:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise LookFailed("KUBERNETES_SERVICE_HOST is not set, so this is no pod: set kubernetes.server")
    return f"https://{address(host, int(port))}"


def _said(status: Status) -> str:
    return f"{status.message or status.reason or 'no reason given'} ({status.code})"[:300]
