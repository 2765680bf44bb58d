"""A worker's end of its link: what the supervisor wants of it, and questions to the other workers."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from lexora_router.workers import frames
from lexora_router.workers.frames import Header
from lexora_router.workers.hub import Part, unpacked
from lexora_router.workers.plan import Place

# What the others count and have is asked for so long; one that does not answer by then is left out.
ASK_SECONDS = 1.0
# Beyond that the supervisor is in trouble itself.
SLACK_SECONDS = 1.0
# What this worker has counted is left with the supervisor so often, for the case that it dies.
KEEP_SECONDS = 5.0

Answer = Callable[[bytes], Awaitable[bytes]]

_log = structlog.get_logger("lexora.workers")


class WorkerLink:
    """Made in the event loop. The supervisor sets `over`, as it does by its own end: then the worker is to end.

    It ends as one process ends, or, where it `leaves`, when all that it has accepted is served: a successor is there.
    """

    def __init__(self, place: Place, over: asyncio.Event) -> None:
        self.number = place.number
        self.workers = place.workers
        self.coordinator = place.coordinator
        self.secret = bytes.fromhex(place.secret)
        self.leaves = False
        self.first = False  # of the workers that serve: does what one of them has to do
        self._over = over
        self._place = place
        self._begins: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._answers: dict[str, Answer] = {}
        self._adopt: Callable[[bytes], None] | None = None
        self._counts: Callable[[], bytes] | None = None
        self._adopted = 0
        self.drain_seconds: Callable[[], float] | None = None  # that calls may take to end
        self._asked: dict[int, asyncio.Future[list[Part]]] = {}
        self._numbers = 0
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, name: str, answer: Answer) -> None:
        """Answer questions of this name with that."""
        self._answers[name] = answer

    def count(self, counts: Callable[[], bytes], adopt: Callable[[bytes], None]) -> None:
        """Leave these counts with the supervisor, and take over those of workers that have ended."""
        self._counts, self._adopt = counts, adopt

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do this as soon as this worker serves."""
        self._begins.append(work)

    async def serves(self) -> None:
        """Say that this worker serves, and listen to the supervisor from now on: answers must be there."""
        link = socket.socket(fileno=self._place.link)
        link.setblocking(False)
        reader, self._writer = await asyncio.open_unix_connection(sock=link)
        self._send({"kind": "serves"})
        self._spawn(self._read(reader))
        self._spawn(self._keep_counts())
        for work in self._begins:
            self._spawn(work())

    def keep(self, counts: bytes) -> None:
        """Leave what was counted so far with the supervisor."""
        self._send({"kind": "keep", "adopted": self._adopted}, counts)

    def _keep(self) -> None:
        if self._counts is not None:
            self.keep(self._counts())

    async def ask(self, name: str, body: bytes = b"", seconds: float = ASK_SECONDS) -> list[Part]:
        """Ask all other workers. The answer of one that gives none in so many seconds is None."""
        if self._writer is None or self._writer.is_closing():
            return []
        self._numbers += 1
        number = self._numbers
        future: asyncio.Future[list[Part]] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._send({"kind": "ask", "id": number, "name": name, "seconds": seconds}, body)
        try:
            async with asyncio.timeout(seconds + SLACK_SECONDS):
                return await future
        except TimeoutError:
            return []
        finally:
            del self._asked[number]

    async def close(self) -> None:
        """Leave the last counts, and end the link."""
        if self._writer is not None and not self._writer.is_closing():
            self._keep()
            with contextlib.suppress(ConnectionError):  # the supervisor has ended
                await self._writer.drain()
            self._writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send(self, header: Header, body: bytes = b"") -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frames.pack(header, body))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while (frame := await frames.read(reader)) is not None:
            self._on_frame(*frame)
        if not self._over.is_set():
            _log.error("supervisor_lost", problem="it has ended, so this worker ends too, when its calls are done")
        self._stop()

    def _stop(self) -> None:
        self.leaves = False
        self._over.set()

    def _on_frame(self, header: Header, body: bytes) -> None:
        match header["kind"]:
            case "stop":
                self._say_drain()
                self._stop()
            case "leave":
                self._say_drain()
                self.leaves = not self._over.is_set()
                self._over.set()
            case "first":
                self.first = True
            case "adopt":
                self._take_over(int(header["id"]), body)
            case "question":
                self._spawn(self._answer(header, body))
            case "parts":
                future = self._asked.get(int(header["id"]))
                if future is not None and not future.done():
                    future.set_result(unpacked(header["index"], body))

    def _say_drain(self) -> None:
        """A reload may have changed what the supervisor waits for before it kills."""
        if self.drain_seconds is not None:
            self._send({"kind": "drains", "seconds": self.drain_seconds()})

    def _take_over(self, number: int, counts: bytes) -> None:
        if self._adopt is None:
            return
        try:
            self._adopt(counts)
        except Exception:  # the boundary: counts of another version are lost, and nothing else
            _log.exception("bug", work="counts of another worker")
        self._adopted = number
        self._keep()

    async def _answer(self, header: Header, body: bytes) -> None:
        answer = self._answers.get(header["name"])
        try:
            if answer is not None:
                self._send({"kind": "answer", "id": header["id"]}, await answer(body))
                return
        except Exception:  # the boundary: the one that asks is answered, and the log has the rest
            _log.exception("bug", question=header["name"])
        self._send({"kind": "answer", "id": header["id"], "failed": True})

    async def _keep_counts(self) -> None:
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            self._keep()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
