"""A call's events on their way to the client, as messages of a stream."""

from collections.abc import Callable

from lexora.v1 import chat_pb2, receipt_pb2, router_pb2
from lexora_contract.answer import Head, Reply
from lexora_contract.messages import head_message, reply_message
from lexora_contract.port import Send
from lexora_router.call import Event, Frames
from lexora_router.edge.translate import ChunkReader, CompletionChunkReader
from lexora_router.errors import UpstreamInvalid


class StreamSink:
    """Sends a call's events as messages, in the form of the request; the head travels with the first frames."""

    def __init__(self, kind: str | None, send: Send, receipt: Callable[[], receipt_pb2.Receipt]) -> None:
        self._send = send
        self._receipt = receipt
        self._reader = _reader(kind)
        self._head: Head | None = None
        self._reply: Reply | None = None

    async def __call__(self, event: Event) -> None:
        """Send one event. Raises UpstreamInvalid when a typed stream gets a whole answer."""
        if isinstance(event, Frames):
            if self._reader is not None:
                await self._send_typed(event)
            elif self._head is None:
                await self._send(router_pb2.StreamResponse(frames=event.data))
            else:
                head, self._head = head_message(self._head), None
                await self._send(router_pb2.StreamResponse(receipt=self._receipt(), head=head, frames=event.data))
        elif isinstance(event, Head):
            self._head = event
        elif self._reader is not None:
            raise UpstreamInvalid("The engine sent a whole answer where a stream was asked for.")
        else:
            self._reply = event

    async def end(self) -> None:
        """The call is done: send the final receipt, and with it the whole answer if there is one."""
        reply = None if self._reply is None else reply_message(self._reply)
        await self._send(router_pb2.StreamResponse(receipt=self._receipt(), reply=reply))

    async def _send_typed(self, frames: Frames) -> None:
        assert self._reader is not None
        for chunk in self._reader.feed(frames.data):
            receipt, self._head = (self._receipt() if self._head is not None else None), None
            if isinstance(chunk, chat_pb2.ChatChunk):
                await self._send(router_pb2.StreamResponse(receipt=receipt, chat=chunk))
            else:
                await self._send(router_pb2.StreamResponse(receipt=receipt, completion=chunk))


def _reader(kind: str | None) -> ChunkReader | CompletionChunkReader | None:
    match kind:
        case "chat":
            return ChunkReader()
        case "completion":
            return CompletionChunkReader()
    return None
