"""Clients over HTTP and gRPC: one call each, to its end or left before, and what its client saw of it."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import aiohttp
import grpc
import msgspec
from google.rpc.error_details_pb2 import ErrorInfo

from lexora.v1 import router_pb2, tokens_pb2
from tests.support.links import status_in

PATIENCE_SECONDS = 0.5
Counted = tuple[int, int, int]


@dataclass(slots=True)
class Seen:
    """What a client saw of its call: HTTP status or the error's name, and tokens in, out and cached; None where not told."""

    status: int | None = None
    error: str | None = None
    left: bool = False
    counted: Counted | None = None


@dataclass(slots=True)
class Clients:
    """Who makes the calls; `seen` by request id."""

    session: aiohttp.ClientSession
    stub: Any
    seen: dict[str, Seen] = field(default_factory=dict)

    async def post(self, name: str, path: str, body: Mapping[str, Any] | bytes, **headers: str) -> Seen:
        """One call over HTTP, read to its end."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {"content-type": "application/json", "x-request-id": name} | _names(headers)
        async with self.session.post(path, data=data, headers=sent) as response:
            events = _events(await response.read())
        errors = [found.get("error", found) for found in events if "error" in found or found.get("type") == "error"]
        return Seen(response.status, _word(errors[-1]) if errors else None, counted=_counted(events))

    async def leave(self, name: str, path: str, body: Mapping[str, Any], after: int) -> Seen:
        """One call over HTTP, left after so many events; before the answer, after a while, with 0."""
        data, sent = msgspec.json.encode(body), {"content-type": "application/json", "x-request-id": name}
        try:
            async with asyncio.timeout(None if after else PATIENCE_SECONDS):
                async with self.session.post(path, data=data, headers=sent) as response:
                    events = 0
                    while events < after:
                        events += (await response.content.readline()).startswith(b"data:")
        except TimeoutError:
            assert not after
        return Seen(left=True)

    async def rpc(self, method: str, request: Any, **options: Any) -> Seen:
        """One unary call over gRPC."""
        try:
            answer = await getattr(self.stub, method)(request, **options)
        except grpc.aio.AioRpcError as error:
            return _refused(error)
        return Seen(200, counted=_of_message(answer.receipt.usage))

    async def rpc_stream(self, request: router_pb2.StreamRequest, after: int | None = None) -> Seen:
        """One streamed call over gRPC, left after so many events; before the answer, after a while, with 0."""
        call, events, counted = self.stub.Stream(request), 0, None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if after == 0 else None):
                while not after or events < after:
                    if (message := await call.read()) is grpc.aio.EOF:
                        break
                    events += message.delta.frames.count(b"data:")
                    counted = _of_message(message.completed.receipt.usage) if message.HasField("completed") else counted
        except TimeoutError:
            assert after == 0
        except grpc.aio.AioRpcError as error:
            return _refused(error)
        if after is not None:
            call.cancel()
            return Seen(left=True)
        return Seen(200, counted=counted)


def _names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _word(error: dict[str, Any]) -> str:
    return str(error.get("code") or error.get("type"))


def _events(body: bytes) -> list[dict[str, Any]]:
    """The JSON objects of an answer, whole or streamed."""
    if body.startswith(b"{"):
        return [msgspec.json.decode(body)]
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: {")]
    return [msgspec.json.decode(line) for line in lines]


def _counted(events: list[dict[str, Any]]) -> Counted | None:
    """Tokens in, out and cached, whatever the dialect: counts only grow."""
    found = list(chain.from_iterable(map(_usages, events)))
    if not found:
        return None
    cached = [(each.get("prompt_tokens_details") or each.get("input_tokens_details") or {}) for each in found]
    return (
        max(each.get("prompt_tokens") or each.get("input_tokens") or 0 for each in found),
        max(each.get("completion_tokens") or each.get("output_tokens") or 0 for each in found),
        max(each.get("cached_tokens") or 0 for each in cached),
    )


def _usages(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for holder in (event, event.get("response"), event.get("message")):
        if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
            yield holder["usage"]


def _of_message(usage: tokens_pb2.Usage) -> Counted:
    return usage.input_tokens, usage.output_tokens, usage.cached_tokens


def _refused(error: grpc.aio.AioRpcError) -> Seen:
    if error.code() is grpc.StatusCode.CANCELLED:
        return Seen(left=True)
    (info,) = [each for each in status_in(error).details if each.Is(ErrorInfo.DESCRIPTOR)]
    return Seen(error=ErrorInfo.FromString(info.value).reason)
