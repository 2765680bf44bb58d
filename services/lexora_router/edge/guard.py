"""What surrounds every rpc: its call is made and counted, and whatever goes wrong becomes a CallFailed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from lexora.v1 import options_pb2
from lexora_contract.access import Scope
from lexora_contract.answer import Receipt
from lexora_contract.draining import Underway
from lexora_contract.key_text import without_secrets
from lexora_contract.labels import labels_fault
from lexora_contract.messages import options_of
from lexora_contract.port import CallContext, Options
from lexora_contract.request_ids import is_request_id, new_request_id
from lexora_contract.rpcs import Rpc
from lexora_router.access.audit import AuditLog
from lexora_router.access.credentials import missing
from lexora_router.access.operators import OPERATOR
from lexora_router.call import ANONYMOUS, Call
from lexora_router.edge.call_context import check_identity, origin_of
from lexora_router.edge.call_failed import bug_in, failed
from lexora_router.edge.identity import Request, user_of
from lexora_router.edge.options import check_options, check_policies, is_key
from lexora_router.edge.serving import Serving
from lexora_router.errors import (
    DeadlineExceeded,
    Draining,
    PermissionDenied,
    RateLimited,
    RouterError,
    http_status,
)
from lexora_router.layers.observe import NOT_DONE, Recorder
from lexora_router.payload.user_names import bounded
from lexora_router.principal import ANYBODY, STRANGER, Principal
from lexora_router.telemetry.trace_context import trace_id_of

DRAINING = "The router is shutting down; try another one."
JSON = "application/json"
_NO_OPTIONS = Options()

_log = structlog.get_logger("lexora.server")
_Answer = TypeVar("_Answer")


class Guard:
    """The calls under way of a router. `draining` refuses new ones."""

    def __init__(
        self,
        serving: Serving,
        *,
        recorders: tuple[Recorder, ...],
        clock: Callable[[], float],
        audit: AuditLog | None = None,
    ) -> None:
        self.serving = serving  # a reload puts another one here
        self.draining = False
        self._calls: Underway[Call] = Underway()
        self._recorders = recorders
        self._clock = clock
        self.audit = AuditLog() if audit is None else audit

    async def administered(
        self,
        rpc: Rpc[Any, Any],
        context: CallContext,
        serve: Callable[[Call], Awaitable[_Answer]],
        *,
        always: bool = False,
    ) -> _Answer:
        """As `guarded`, for an act of an operator, which the audit log gets; those that are refused it gets there."""

        async def noted(call: Call) -> _Answer:
            answer = await serve(call)
            self._note_act(rpc, call, "done")
            return answer

        return await self.guarded(rpc, _NO_OPTIONS, context, noted, always=always)

    def _note_refusal(self, rpc: Rpc[Any, Any], call: Call, error: RouterError) -> None:
        if rpc.scope is Scope.ADMIN and call.principal is not STRANGER:  # strangers are summed
            self._note_act(rpc, call, error.reason)

    def _note_act(self, rpc: Rpc[Any, Any], call: Call, result: str) -> None:
        _, _, address = call.unnamed.partition("@")
        self.audit.note(
            "admin_action", rpc=rpc.name, by=actor(call), tenant=call.principal.account, address=address, result=result
        )

    async def guarded(
        self,
        rpc: Rpc[Any, Any],
        options: options_pb2.CallOptions | Options,
        context: CallContext,
        serve: Callable[[Call], Awaitable[_Answer]],
        *,
        always: bool = False,
        limited: Request | None = None,
        body: bytes = b"",
    ) -> _Answer:
        """Identify the caller and serve the call (while draining only if `always`); whatever goes wrong becomes a CallFailed.

        `limited` is a request that counts, also against its user's limit, even when it never becomes a call; questions about
        the router do not. `body` is the call's, if it is not in the context.
        """
        plain = options if isinstance(options, Options) else options_of(options)
        call = self._call(plain, context, body or context.take_body())
        task = None if always else self._calls.begin(call)
        try:
            if rpc.scope is not Scope.OPEN:
                access, call.principal = self.serving.access, STRANGER
                principal = access.known(context)
                if principal is None:
                    principal = await within(call, access.find(context))
                _let_in(call, principal, rpc)
            if self.draining and not always:
                raise Draining(DRAINING)
            check_options(plain, call.id)
            if not isinstance(options, Options):
                check_policies(options)
            check_identity(context)
            return await serve(call)
        except RouterError as error:
            self._note_refusal(rpc, call, error)
            if limited is not None and not call.receipt.finished_at:
                error = self.end_unseen(call, error, limited)
            raise failed(error, call.receipt, trace_id_of(call.trace)) from error
        except asyncio.CancelledError:
            if self._calls.ended_by_abort():
                raise failed(Draining(NOT_DONE), call.receipt, trace_id_of(call.trace)) from None
            raise
        except Exception as bug:  # the boundary: a client gets an identity, the log gets the rest
            _log.exception("bug", request_id=call.id)
            raise bug_in(call.receipt, trace_id_of(call.trace)) from bug
        finally:
            if task is not None:
                self._calls.end(task)

    @property
    def active(self) -> int:
        """Calls under way that a drain waits for: all but questions about the router."""
        return len(self._calls)

    @property
    def held(self) -> int:
        """Bytes of their bodies. O(calls)."""
        return sum(len(call.body) for call in self._calls)

    async def idle(self, seconds: float) -> bool:
        """Wait until no call is under way, for at most so many seconds; whether that came."""
        return await self._calls.idle(seconds)

    def abort(self) -> None:
        """End the calls under way with an error that says why, so that their clients get an end of their answers."""
        for call in self._calls.abort():
            call.aborted = True

    def end_unseen(self, call: Call, error: RouterError, request: Request, status: int | None = None) -> RouterError:
        """Count and write down a call that was refused before the pipeline saw it; what it is refused with in the end.

        `status` is what the client has got, where that is not what the error says.
        """
        if call.principal is STRANGER:
            # What a stranger calls itself is no name to charge or to write down, nor is each address one of its own.
            call.user, call.account, call.unnamed = "", "", ANONYMOUS
        else:
            call.user = call.user or user_of(request, call.body)
        refusal, error = error, self._metered(call, error)
        seen = status if status is not None and error is refusal else http_status(error)
        call.receipt.finished_at = self._clock()
        for recorder in self._recorders:
            recorder.begin(call)
            recorder.end(call, seen, error)
        return error

    def _metered(self, call: Call, error: RouterError) -> RouterError:
        """A malformed request is a request; one that comes while draining is for another router to charge."""
        meter = self.serving.meter
        if meter is None or call.principal is STRANGER:
            return error
        try:
            if isinstance(error, Draining):
                meter.show(call)
            else:
                meter.count(call)
        except RateLimited as limited:
            return limited
        return error

    def _call(self, options: Options, context: CallContext, body: bytes) -> Call:
        now = self._clock()
        user, tenant, address, trace = origin_of(context, self.serving.proxies)
        user, tenant, given = user or options.user, tenant or options.tenant, options.request_id
        request_id = given if is_request_id(given) else new_request_id()
        call = Call(
            request_id,
            "",  # path, content type, model and stream are read from the request
            body,
            JSON,
            "",
            False,
            now,
            receipt=Receipt(request_id, now),
            user=bounded(user) if user else "",
            account=bounded(tenant) if tenant else "",
            unnamed=f"{ANONYMOUS}@{address}" if address else ANONYMOUS,
            deadline=None if context.timeout is None else now + context.timeout,
            trace=trace,
            flow=context.flow,
        )
        if (
            options.priority is not None
            or options.max_queue_time is not None
            or options.prompt_cache_key
            or options.session_key
            or options.idempotency_key
            or options.labels
            or not options.fallback_allowed
            or not options.resume_allowed
        ):
            _take(options, call)
        return call


def _take(options: Options, call: Call) -> None:
    """What a client says of its call beside its body, as far as it is within bounds."""
    call.prompt_cache_key = bounded(options.prompt_cache_key)
    call.session_key = bounded(options.session_key)
    call.idempotency_key = options.idempotency_key if is_key(options.idempotency_key) else ""
    call.priority, call.max_queue_time = options.priority, options.max_queue_time
    if options.labels and not labels_fault(options.labels):
        call.labels = tuple((key, without_secrets(value)) for key, value in options.labels)
    call.fallback_allowed, call.resume_allowed = options.fallback_allowed, options.resume_allowed


def _let_in(call: Call, principal: Principal, rpc: Rpc[Any, Any]) -> None:
    """The call is its principal's, which must have the scope of this rpc."""
    allowed = rpc.scope in principal.scopes
    if principal is OPERATOR and not allowed:
        raise missing()  # no credentials were shown at all: it stays a stranger
    call.principal = principal
    if principal is not ANYBODY:
        call.account = principal.account or call.account
    if not allowed:
        raise PermissionDenied(f"{rpc.name} needs the scope `{rpc.scope}`, which these credentials do not have.")


def actor(call: Call) -> str:
    """The caller as the audit log names it: the public part of its credential."""
    return call.principal.key or call.principal.name or call.unnamed


async def within(call: Call, answer: Awaitable[_Answer]) -> _Answer:
    """Await an answer that does not pass the pipeline; raises DeadlineExceeded as the pipeline does."""
    try:
        async with asyncio.timeout_at(call.deadline):
            return await answer
    except TimeoutError:
        assert call.deadline is not None
        allowed = call.deadline - call.started
        raise DeadlineExceeded(f"The call was not done within its deadline of {allowed:.3g} s.") from None
