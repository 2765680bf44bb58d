"""The floor of the gRPC side: a grpc.aio server that reads the same requests and gives the same answers, and does nothing else.

python -m tests.bench.grpc_echo FILE        answers recorded by grpc_load; prints "listening on 127.0.0.1:PORT"
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import uvloop

from lexora.v1 import router_pb2
from tests.bench.grpc_load import GAP_S, SERVICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Echo:
    """Gives recorded answers; those of a stream at the pace of the engine."""

    def __init__(self, file: Path) -> None:
        recorded = json.loads(file.read_text())
        self._reply = router_pb2.GenerateResponse.FromString(bytes.fromhex(recorded["generate"]))
        self._stream = [router_pb2.StreamResponse.FromString(bytes.fromhex(text)) for text in recorded["stream"]]

    async def generate(self, request: object, context: object) -> router_pb2.GenerateResponse:
        return self._reply

    async def stream(self, request: object, context: object) -> AsyncIterator[router_pb2.StreamResponse]:
        loop = asyncio.get_running_loop()
        due = loop.time()
        for message in self._stream:
            yield message
            due += GAP_S
            await asyncio.sleep(due - loop.time())

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Generate": grpc.unary_unary_rpc_method_handler(
                    self.generate, router_pb2.GenerateRequest.FromString, router_pb2.GenerateResponse.SerializeToString
                ),
                "Stream": grpc.unary_stream_rpc_method_handler(
                    self.stream, router_pb2.StreamRequest.FromString, router_pb2.StreamResponse.SerializeToString
                ),
            },
        )


async def serve(file: Path) -> None:
    """Serves on a free port of the loopback until the process is ended."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(file).handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1])))
