"""A stream whose engine dies after the first byte goes on at another endpoint, in the same client stream."""

from collections.abc import Awaitable, Mapping
from dataclasses import replace

from lexora_contract.answer import Head, Receipt, Reply, Usage
from lexora_contract.operations import CHAT, COMPLETIONS
from lexora_contract.port import Sink
from lexora_router.call import Call, Handler
from lexora_router.errors import RouterError, UpstreamInvalid
from lexora_router.policy.failures import verdict_of
from lexora_router.resume.continuation import by_ids, by_text, with_ids
from lexora_router.resume.eligibility import ResumePlan, ResumeSource, plan_resume
from lexora_router.resume.progress import Progress
from lexora_router.resume.recorder import StreamRecorder
from lexora_router.resume.reshape import Reshaper, ending


class Resume:
    """Continues streams of the pools in `sources`; every other call passes through untouched."""

    def __init__(self, inner: Handler, *, sources: Mapping[str, ResumeSource]) -> None:
        self._inner = inner
        self._sources = sources

    def __call__(self, call: Call, sink: Sink) -> Awaitable[None]:
        """Serve the call; raises the failure of the last engine that spoke when no other one can go on."""
        assert call.target is not None
        source = self._sources.get(call.target.backend)
        wanted = None
        if source is not None and call.stream and call.resume_allowed and source.endpoints() > 1:
            wanted = plan_resume(call.path, call.body, source)
        if source is None or wanted is None:
            return self._inner(call, sink)
        return _Stream(self._inner, call, sink, wanted, source.endpoints()).serve()


class _Stream:
    """One client stream, over as many engines as it takes; the sink of each."""

    def __init__(self, inner: Handler, call: Call, sink: Sink, wanted: ResumePlan, endpoints: int) -> None:
        self._inner = inner
        self._call = call
        self._sink = sink
        self._plan = wanted
        self._left = endpoints  # continuations: a restart of each in turn is survived
        self._hide_ids = wanted.ids and not wanted.asked_ids
        self._progress = Progress(
            hold=wanted.hold,
            greedy=wanted.greedy,
            keep_ids=wanted.ids,
            keep_text=wanted.text,
            show_ids=wanted.asked_ids,
        )
        self._shape: StreamRecorder | Reshaper = StreamRecorder(self._progress, hide_ids=self._hide_ids)
        self._first = replace(call, body=with_ids(wanted, call.body))
        self._attempt = self._first
        self._head: Head | None = None
        self._kept = 0
        self._spoke = False  # the engine of this attempt

    async def serve(self) -> None:
        """Serve the call to its end; raises as the layer does."""
        death: RouterError | None = None
        ended = False
        try:
            while not ended:
                try:
                    await self._try()
                    return
                except RouterError as failure:
                    death = failure if self._spoke or death is None else death
                    if self._progress.ended or (not self._spoke and self._attempt is self._first):
                        raise
                    ended = verdict_of(failure).resume and self._complete()
                    if not ended and not (verdict_of(failure).resume and self._continue()):
                        raise death from None
        finally:
            death = None  # it refers to this frame
        self._end()

    async def _try(self) -> None:
        try:
            await self._inner(self._attempt, self)
        finally:
            self._settle()

    def head(self, head: Head) -> None:
        """An engine's head: the client gets the first one, with the first frames, so that a fallback can come before them."""
        if self._attempt is self._first:
            self._head = head

    def frames(self, data: bytes) -> None:
        """An engine's events; raises UpstreamInvalid for what cannot go on."""
        if not self._spoke:
            self._begin()
        if self._attempt is not self._first:
            self._call.receipt.events += data.count(b"data:")
        shape = self._shape
        self._show(shape.feed(data))
        if shape.failure is not None:
            raise shape.failure

    def reply(self, reply: Reply) -> None:
        """An engine's whole answer, which may only be the first one's."""
        if self._attempt is not self._first:
            raise UpstreamInvalid("The engine that was to continue a stream sent a whole answer.")
        self._call.begun = True
        self._sink.reply(reply)

    def _begin(self) -> None:
        self._spoke = True
        if self._attempt is not self._first:
            self._call.receipt.resumed = self._progress.mode

    def _show(self, data: bytes) -> None:
        if not data:
            return
        if self._head is not None:
            head, self._head = self._head, None
            self._call.begun = True
            self._sink.head(head)
        self._sink.frames(data)

    def _continue(self) -> bool:
        """Make the call for another engine; False when there is none, or nothing to go on from."""
        progress, lease = self._progress, self._call.lease
        if not progress.mode or progress.thinking or self._left <= 0 or lease is None:
            return False
        if not lease.may_go_on() or not lease.has_untried():
            return False
        self._left -= 1
        self._call.receipt.lost_tokens += progress.rewind()
        self._kept = kept = progress.kept
        path, body = self._first.path, self._first.body  # nothing said yet: the same call again
        if kept and progress.mode == "text":
            body = by_text(self._plan, progress)
        elif kept:
            path, body = COMPLETIONS, by_ids(self._plan, progress)
        self._shape = Reshaper(progress, chat=self._call.path == CHAT, hide_ids=self._hide_ids, kept=kept)
        receipt = replace(self._call.receipt, usage=None, events=0, first_event_at=0.0)
        # What the client has seen the beginning of goes on here or nowhere.
        self._attempt = replace(self._call, path=path, body=body, receipt=receipt, elsewhere=False, begun=False)
        self._spoke = False
        return True

    def _complete(self) -> bool:
        """Whether the text is complete, and this layer sends its end."""
        progress, most = self._progress, self._plan.max_tokens
        if progress.mode == "token_ids":
            return progress.finished or (most is not None and progress.kept >= most)
        return progress.finished and (progress.counted or not self._call.include_usage)

    def _end(self) -> None:
        progress, receipt = self._progress, self._call.receipt
        usage = self._call.include_usage and not progress.counted
        receipt.resumed = receipt.resumed or progress.mode
        if progress.mode == "token_ids" and receipt.usage is None:
            receipt.usage = Usage(len(progress.prompt or ()), len(progress.ids))
        reason = None if progress.finished else "length"
        self._show(ending(progress, reason, chat=self._call.path == CHAT, usage=usage))

    def _settle(self) -> None:
        """What a continuation did goes on the call's own receipt; what it took over as its prompt was output before."""
        self._shape.failure = None  # it refers to frames that refer to the shape
        mine, its = self._call.receipt, self._attempt.receipt
        if its is mine:
            return
        mine.attempts, mine.endpoint, mine.finish_reasons = its.attempts, its.endpoint, its.finish_reasons
        if its.usage is not None:
            mine.usage = _total(its, self._kept)


def _total(receipt: Receipt, kept: int) -> Usage:
    usage = receipt.usage or Usage()
    before = max(usage.input_tokens - kept, 0)
    return Usage(before, usage.output_tokens + kept, min(usage.cached_tokens, before), usage.reasoning_tokens)
