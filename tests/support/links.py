"""One caller's view of a router, whatever lies between: nothing (in process), TCP, or a unix socket.

Everything comes back as an `Outcome`, so that tests can demand the same of every way.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from lexora.v1 import embed_pb2, errors_pb2, receipt_pb2, router_pb2
from lexora_contract.channel import ChannelRouter
from lexora_contract.inprocess import InProcessRouter
from lexora_contract.port import CallContext, CallFailed, RouterPort
from lexora_contract.rpcs import EMBED, GENERATE, UNARY, Rpc
from lexora_contract.status import status_of
from lexora_router.config import Config
from lexora_router.process.app import RouterApp

WAYS = ("in process", "tcp")
ALL_WAYS = (*WAYS, "unix")  # another address of the same server: a few tests of each kind of call are enough
MIB = 1024 * 1024
DEADLINE_SECONDS = 20.0
RPCS: dict[str, Rpc[Any, Any]] = {rpc.method: rpc for rpc in UNARY}


@dataclass
class Outcome:
    """What a call came to: its messages in order, and the status it ended with, None when all went well."""

    messages: list[Any] = field(default_factory=list)
    status: status_pb2.Status | None = None

    @property
    def only(self) -> Any:
        """The one message of a call that succeeded."""
        assert self.status is None, self.status
        assert len(self.messages) == 1
        return self.messages[0]

    @property
    def failure(self) -> status_pb2.Status:
        """The status of a call that failed."""
        assert self.status is not None, self.messages
        return self.status

    def detail(self, kind: type[Message]) -> Any:
        """The one detail of this type; None when there is none."""
        found = []
        for detail in self.failure.details:
            message = kind()
            if detail.Unpack(message):
                found.append(message)
        assert len(found) < 2
        return found[0] if found else None

    @property
    def reason(self) -> str:
        """The reason in the status' ErrorInfo."""
        return str(self.detail(error_details_pb2.ErrorInfo).reason)

    @property
    def upstream(self) -> errors_pb2.UpstreamError:
        """The engine's own error."""
        found = self.detail(errors_pb2.UpstreamError)
        assert isinstance(found, errors_pb2.UpstreamError), self.status
        return found


@dataclass
class Link:
    """A router and one way to it. `address` is the target for further gRPC channels."""

    way: str
    app: RouterApp
    port: RouterPort
    address: str

    async def generate(self, request: router_pb2.GenerateRequest, **context: Any) -> Outcome:
        """Call Generate; `context` is `timeout` in seconds and `metadata`."""
        return await _outcome(self.port.unary(GENERATE, request, CallContext(**context)))

    async def stream(
        self, request: router_pb2.StreamRequest, *, seen: Callable[[Any], None] | None = None, **context: Any
    ) -> Outcome:
        """Call Stream; `seen` is told of every message as it comes."""
        outcome = Outcome()

        async def emit(message: router_pb2.StreamResponse) -> None:
            outcome.messages.append(_settled(message))
            if seen is not None:
                seen(message)

        ended = await _outcome(self.port.stream(request, CallContext(**context), emit))
        outcome.status = ended.status
        return outcome

    async def embed(self, request: embed_pb2.EmbedRequest, **context: Any) -> Outcome:
        """Call Embed."""
        return await _outcome(self.port.unary(EMBED, request, CallContext(**context)))

    async def ask(self, rpc: str, request: Any, **context: Any) -> Outcome:
        """Call one of the RPCS, by its method."""
        return await _outcome(self.port.unary(RPCS[rpc], request, CallContext(**context)))

    async def idle(self, seconds: float = DEADLINE_SECONDS) -> None:
        """Return when every gauge is back to zero; fails after `seconds`."""
        await settle(lambda: not self.app.active and not gauges(self.app), seconds)


def gauges(app: RouterApp) -> dict[str, float]:
    """The gauges of calls under way that are not zero."""
    found = {}
    for family in app.registry.collect():
        if family.name in ("lexora_active_requests", "lexora_endpoint_in_flight"):
            for sample in family.samples:
                found[f"{sample.name}{sample.labels}"] = sample.value
    assert len(found) >= 2, "the gauges are missing"
    return {name: value for name, value in found.items() if value}


async def settle(done: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> float:
    """Let the loop run until something is true; returns the instant (time.monotonic). Fails after `seconds`."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it did not come to that in time"
        await asyncio.sleep(0.001)
    return time.monotonic()


@contextlib.asynccontextmanager
async def running(config: Config, host: str = "127.0.0.1") -> AsyncIterator[tuple[RouterApp, str]]:
    """A router in this loop, and the target of its gRPC server. `host` may be unix:path."""
    app = RouterApp(config)
    try:
        port = await app.start(host, 0)
        yield app, host if host.startswith("unix:") else f"{host}:{port}"
    finally:
        await app.stop()


@contextlib.asynccontextmanager
async def linked(way: str, config: Config, folder: Path) -> AsyncIterator[Link]:
    """A router and one of ALL_WAYS to it."""
    host = f"unix:{folder}/router.sock" if way == "unix" else "127.0.0.1"
    async with running(config, host) as (app, address):
        if way == "in process":
            yield Link(way, app, InProcessRouter(app.services), address)
            return
        router = ChannelRouter(address, max_send_bytes=config.server.max_body_bytes + MIB)
        try:
            yield Link(way, app, router, address)
        finally:
            await router.close()


@contextlib.asynccontextmanager
async def channel(address: str, *options: tuple[str, Any]) -> AsyncIterator[grpc.aio.Channel]:
    """A stock channel, as any user would open it; a socket of its own."""
    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1), *options]) as wire:
        yield wire


def status_in(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The google.rpc.Status in the trailing metadata of a failed call."""
    return status_pb2.Status.FromString(trailers(error.trailing_metadata())["grpc-status-details-bin"])


def trailers(metadata: Any) -> dict[str, Any]:
    """Trailing metadata by name; none may come twice."""
    pairs = list(metadata or ())
    assert len({name for name, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


async def _outcome(call: Awaitable[Any]) -> Outcome:
    try:
        answer = await call
    except CallFailed as error:
        return Outcome(status=_settled_status(status_of(error, max_body=MIB)))
    return Outcome([] if answer is None else [_settled(answer)])


def _settled(message: Any) -> Any:
    """The message without its times, which are checked and never the same twice."""
    if isinstance(message, router_pb2.StreamResponse):
        for event in ("started", "completed"):
            if message.HasField(event):
                _settle_receipt(getattr(message, event).receipt)
    elif message.DESCRIPTOR.fields_by_name.get("receipt") is not None and message.HasField("receipt"):
        _settle_receipt(message.receipt)
    return message


def _settle_receipt(receipt: receipt_pb2.Receipt) -> None:
    for name in ("queue_time", "time_to_first_token", "total_time"):
        duration = getattr(receipt, name)
        assert 0 <= duration.ToNanoseconds() < 60e9
        receipt.ClearField(name)


def _settled_status(status: status_pb2.Status) -> status_pb2.Status:
    for detail in status.details:
        receipt = receipt_pb2.Receipt()
        if detail.Unpack(receipt):
            _settle_receipt(receipt)
            detail.Pack(receipt)
    return status
