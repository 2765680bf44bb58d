"""`python -m lexora_router.workers.supervisor`: starts the workers, and keeps, replaces and ends them.

It serves nothing by itself, and imports nothing that does: it is as small as a Python process that waits.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Coroutine

from lexora_router.workers.coordinator_process import CoordinatorProcess
from lexora_router.workers.frames import Header
from lexora_router.workers.hub import Hub, packed
from lexora_router.workers.log_lines import LogLines
from lexora_router.workers.plan import Place, Plan
from lexora_router.workers.restarts import Failures, Restarts
from lexora_router.workers.running import Running
from lexora_router.workers.sockets import share

FAILED = 1
# After `server.drain_timeout` a worker cuts what is left by itself; one that does not is killed so many seconds later.
KILL_SECONDS = 15.0
# A worker that does not serve so long after its start is not going to.
START_SECONDS = 60.0
# Loading a configuration: files on a slow disk, certificates, the issuers of tokens.
RELOAD_SECONDS = 30.0
MOST_ASKING = 60.0


class Slot:
    """The place of one worker: its sockets, its process, and one that leaves while its successor serves already."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sockets: dict[str, int] = {}
        self.worker: Running | None = None
        self.successor: Running | None = None  # that is to take its place
        self.restarts = Restarts()


class Supervisor:
    """Runs a plan; `run` gives the exit code."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._log = LogLines(as_json=plan.json_log, quiet=plan.quiet)
        self._hub = Hub()
        self._secret = os.urandom(32).hex()
        self._slots = [Slot(number) for number in range(1, plan.workers + 1)]
        self._running: set[Running] = set()
        self._failures = Failures()
        self._stop = asyncio.Event()
        self._hangup = asyncio.Event()
        self._coordinator: CoordinatorProcess | None = None
        self._started = False  # all of them
        self._given_up = False
        self._signals = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, or until no worker can be started."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)
        if not self._plan.coordinator:
            return await self._serve()
        try:
            self._coordinator = coordinator = CoordinatorProcess(self._log)
        except OSError as error:
            self._log.error("given_up", problem=f"no folder for a socket: {error}; change XDG_RUNTIME_DIR or TMPDIR")
            return FAILED
        keeping = asyncio.create_task(coordinator.keep())
        try:
            return await self._serve()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            coordinator.remove()

    async def _serve(self) -> int:
        if not await self._start_all():
            stopped = self._stop.is_set()
            if not stopped:
                self._log.error("given_up", problem="a worker did not come to serve: it was killed, or has said why")
            await self._end()
            return 0 if stopped else FAILED
        self._started = True
        self._log.info("serving", **self._plan.shown, workers=self._plan.workers)
        rolling = asyncio.create_task(self._on_hangup())
        await self._stop.wait()
        rolling.cancel()
        self._log.info("stopping", workers=len(self._running))
        await self._end()
        if self._given_up:
            self._log.error("given_up", problem="no worker can be started; what they have said is above")
            return FAILED
        self._log.info("stopped")
        return 0

    def _on_stop(self) -> None:
        """The first signal lets calls end; the second one ends at once."""
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            for each in self._running:
                each.signal(signal.SIGKILL)

    async def _start_all(self) -> bool:
        """Start the first worker, then all others: what keeps one from starting is said once. Whether all serve."""
        first, *others = self._slots
        if not await self._served(self._start(first)):
            return False
        if self._coordinator is not None:
            await self._coordinator.ready()
        started = [self._start(slot) for slot in others]
        return all(await asyncio.gather(*map(self._served, started)))

    async def _served(self, worker: Running) -> bool:
        """Whether a new worker comes to serve, in time and before a stop."""
        stopped = asyncio.create_task(self._stop.wait())
        served = asyncio.create_task(worker.served())
        await asyncio.wait((stopped, served), timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        served.cancel()
        return served.done() and not served.cancelled() and served.result()

    def _start(self, slot: Slot, *, beside: Running | None = None) -> Running:
        """Start a worker at a place; `beside` the one that it takes over from, whose sockets it shares."""
        if beside is None:
            # None of them listens yet. What waited at those of a worker that died was refused, and not kept waiting.
            self._close_sockets(slot)
            kept = [each for each in self._plan.addresses if not each.by_grpc]
            slot.sockets = {each.name: share(each.host, each.port).detach() for each in kept}
        place = Place(
            slot.number,
            self._plan.workers,
            -1,
            slot.sockets,
            {each.name: each.port for each in self._plan.addresses if each.by_grpc},
            None if self._coordinator is None else self._coordinator.socket,
            self._secret,
        )
        worker = Running.start(self._plan.command, place, self._heard, time.monotonic())
        if beside is None:
            slot.worker = worker
        else:
            slot.successor = worker
        self._running.add(worker)
        self._spawn(self._watch(slot, worker))
        return worker

    @staticmethod
    def _close_sockets(slot: Slot) -> None:
        for number in slot.sockets.values():
            os.close(number)
        slot.sockets = {}

    async def _watch(self, slot: Slot, worker: Running) -> None:
        """Wait for the end of a worker, and start another one where it was not to end."""
        code = await worker.ended
        self._running.discard(worker)
        self._hub.leave(worker)
        if self._stop.is_set() or not (worker.serves.is_set() or self._started):
            return
        if slot.worker is not worker:
            self._log.info("worker_left", worker=slot.number, pid=worker.pid)
            return
        lived = time.monotonic() - worker.started
        wait = slot.restarts.delay(lived)
        self._log.error(
            "worker_died", worker=slot.number, pid=worker.pid, by=_cause(code), lived=round(lived, 1), again_in=wait
        )
        if slot.successor is not None:
            return
        self._close_sockets(slot)  # no new connection waits here
        if not worker.serves.is_set() and self._failures.failed() and not self._hub.peers:
            self._given_up = True
            self._stop.set()
            return
        await self._start_again(slot, wait)

    async def _start_again(self, slot: Slot, wait: float) -> None:
        """Start a worker after so many seconds, and try again for as long as the machine has no room for one."""
        await asyncio.sleep(wait)
        while not self._stop.is_set():
            try:
                self._start(slot)
                return
            except OSError as error:
                wait = slot.restarts.delay(0.0)
                self._log.error("worker_not_started", worker=slot.number, problem=error.strerror, again_in=wait)
            await asyncio.sleep(wait)

    def _heard(self, worker: Running, header: Header, body: bytes) -> None:
        """What a worker says."""
        match header["kind"]:
            case "serves":
                worker.serves.set()
                self._failures.served()
                self._hub.join(worker)
                took = round(time.monotonic() - worker.started, 2)
                self._log.info("worker_serves", worker=worker.number, pid=worker.pid, after=took)
            case "keep":
                self._hub.keep(worker, int(header["adopted"]), body)
            case "drains":
                worker.drains = float(header["seconds"])
            case "answer":
                self._hub.answer(int(header["id"]), None if header.get("failed") else body)
            case "ask":
                self._spawn(self._pass_on(worker, header, body))
            case _:
                pass  # of a later version

    async def _pass_on(self, worker: Running, header: Header, body: bytes) -> None:
        seconds = min(float(header["seconds"]), MOST_ASKING)
        index, bodies = packed(await self._hub.ask(str(header["name"]), body, seconds, but=worker))
        worker.send({"kind": "parts", "id": header["id"], "index": index}, bodies)

    async def _on_hangup(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            try:
                await self._reload()
            except OSError as error:  # the machine has no room for one more worker now
                self._log.error("rolling_ended", problem=error.strerror, kept="the workers that have not been replaced")

    async def _reload(self) -> None:
        """Let the workers load the configuration again, and replace them where that is not enough."""
        parts = await self._hub.ask("reload", b'"signal"', RELOAD_SECONDS)
        answers = [json.loads(part.body) for part in parts if part.body is not None]
        silent = [part.worker for part in parts if part.body is None]
        if silent:
            self._log.warning("reload_unanswered", workers=silent)
        if any(answer["refused"] for answer in answers):
            return  # which the workers have said, with the reasons
        fixed = sorted({key for answer in answers for key in answer["fixed"]})
        if fixed:
            self._log.warning("configuration", needs_restart=fixed, advice="these need a new start of the whole")
        roll = sorted({key for answer in answers for key in answer["roll"]})
        if roll:
            await self._roll(roll)

    async def _roll(self, why: list[str]) -> None:
        """Replace one worker after the other: each leaves when its successor serves. One that does not start ends it."""
        began = time.monotonic()
        self._log.info("rolling", workers=len(self._slots), changed=why)
        for slot in self._slots:
            old = slot.worker
            if old is None or old.ended.done():
                continue  # the next start has the new configuration anyway
            new = self._start(slot, beside=old)
            serves = await self._served(new)
            slot.successor = None
            if not serves:
                new.signal(signal.SIGKILL)
                self._log.error("rolling_ended", worker=slot.number, kept="the workers that have not been replaced")
                if old.ended.done():
                    self._spawn(self._start_again(slot, 0.0))
                return
            slot.worker = new
            if new.ended.done():
                self._spawn(self._start_again(slot, 0.0))
            old.send({"kind": "leave"})
            await self._until(old)
        self._log.info("rolled", workers=len(self._slots), seconds=round(time.monotonic() - began, 1))

    async def _until(self, worker: Running) -> None:
        """Wait for the end of a worker that was asked to end; one that does not is killed."""
        begun = time.monotonic()
        while (left := begun + max(self._plan.drain_timeout, worker.drains) + KILL_SECONDS - time.monotonic()) > 0:
            await asyncio.wait((worker.ended,), timeout=min(left, 1.0))
            if worker.ended.done():
                return
        self._log.warning("worker_killed", worker=worker.number, pid=worker.pid, problem="it did not end in time")
        worker.signal(signal.SIGKILL)
        await worker.ended

    async def _end(self) -> None:
        """End all workers together, as one process would end: `server.drain_timeout` is for all of them."""
        for worker in self._running:
            if worker.serves.is_set():
                worker.send({"kind": "stop"})
            else:
                worker.signal(signal.SIGTERM)
        await asyncio.gather(*(self._until(worker) for worker in list(self._running)))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main() -> int:
    """Run the plan of the environment."""
    plan = Plan.load()
    return asyncio.run(Supervisor(plan).run())


if __name__ == "__main__":
    sys.exit(main())
