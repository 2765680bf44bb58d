"""A call's answer on its way to the client, as messages of a stream."""

import asyncio
from collections import deque
from collections.abc import Callable

from lexora.v1 import receipt_pb2, router_pb2
from lexora_contract.answer import Head, Reply
from lexora_contract.messages import fill_head, fill_reply
from lexora_contract.port import Flow, Send
from lexora_router.edge.translate import chat_chunks, completion_chunks
from lexora_router.errors import UpstreamInvalid

# So much may wait for a write under way, before the engine is read no further.
HIGH_WATER_BYTES = 256 * 1024


class StreamSink:
    """Sends a call's answer as messages, in the form of the request: `started` before the first frames.

    A write is asynchronous: what comes while one is under way waits for it, and then goes as one message. `end` it, or `flush`
    it before an error, and `close` it in any case.
    """

    def __init__(self, kind: str | None, send: Send, put_receipt: Callable[[receipt_pb2.Receipt], None], flow: Flow) -> None:
        self._send = send
        self._put_receipt = put_receipt
        self._flow = flow
        self._read = _READERS.get(kind)  # what makes messages of the events; None: they go as they are
        self._head: Head | None = None
        self._reply: Reply | None = None
        self._frames: list[bytes] = []
        self._chunks: deque[router_pb2.StreamResponse] = deque()
        self._waiting = 0  # bytes
        self._ended = False
        self._started: router_pb2.StreamResponse | None = None  # with the receipt as it is when the first frames come
        self._task = asyncio.current_task()
        self._writer: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None

    def head(self, head: Head) -> None:
        """It waits for the first frames."""
        self._head = head

    def frames(self, data: bytes) -> None:
        """Send events, in a moment. A write that fails cancels the call."""
        if self._head is not None:
            self._start(self._head)
        if self._read is None:
            self._frames.append(data)
        else:
            self._chunks.extend(self._read(data))
        self._waiting += len(data)
        if self._waiting > HIGH_WATER_BYTES and not self._flow.paused:
            self._flow.pause()
        self._write()

    def reply(self, reply: Reply) -> None:
        """Keep it for the end. Raises UpstreamInvalid when a typed stream gets a whole answer."""
        if self._read is not None:
            raise UpstreamInvalid("The engine sent a whole answer where a stream was asked for.")
        self._reply = reply

    async def end(self) -> None:
        """The call is done: send the rest and the final receipt, and with it the whole answer if there is one."""
        await self.flush()
        response = router_pb2.StreamResponse()
        self._put_receipt(response.completed.receipt)
        if self._reply is not None:
            fill_reply(response.completed.reply, self._reply)
        await self._send(response)

    async def flush(self) -> None:
        """Return when all that came was written. Raises what a write raised."""
        self._ended = True
        if self._writer is not None:
            self._write()
            await self._writer

    def close(self) -> None:
        """Write nothing more. Raises the error of a write that failed, unless that means that the client is gone."""
        writer = self._writer
        if writer is None:
            return
        writer.remove_done_callback(self._failed)
        if not writer.cancel() and not writer.cancelled() and (error := writer.exception()) is not None:
            raise error

    def _failed(self, writer: "asyncio.Task[None]") -> None:
        if self._task is not None and (writer.cancelled() or writer.exception() is not None):
            self._task.cancel()

    def _write(self) -> None:
        """Let the writer look."""
        if self._writer is None:
            self._writer = asyncio.create_task(self._run(), name="lexora-write")
            self._writer.add_done_callback(self._failed)
        elif self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _run(self) -> None:
        while True:
            if self._started is not None:
                started, self._started = self._started, None
                await self._send(started)
            while self._frames or self._chunks:
                await self._send(self._message())
            if self._flow.paused:
                self._flow.resume()
            if self._ended:
                return
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def _start(self, head: Head) -> None:
        """Make the message before the first piece; typed calls get no head."""
        self._head = None
        self._started = response = router_pb2.StreamResponse()
        self._put_receipt(response.started.receipt)
        if self._read is None:
            fill_head(response.started.head, head)

    def _message(self) -> router_pb2.StreamResponse:
        """The next message: all frames that wait, or one chunk."""
        if self._chunks:
            chunk = self._chunks.popleft()
            if not self._chunks:
                self._waiting = 0
            return chunk
        data = self._frames[0] if len(self._frames) == 1 else b"".join(self._frames)
        self._frames.clear()
        self._waiting = 0
        response = router_pb2.StreamResponse()
        response.delta.frames = data
        return response


_READERS: dict[str | None, Callable[[bytes], list[router_pb2.StreamResponse]]] = {
    "chat": chat_chunks,
    "completion": completion_chunks,
}
