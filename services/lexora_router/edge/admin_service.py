"""The rpcs of AdminService: what operators ask a router, and have it do."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from lexora.v1 import audit_pb2, explain_pb2, recent_calls_pb2, reload_pb2, stats_pb2
from lexora_contract.key_text import without_secrets
from lexora_contract.operations import CHAT
from lexora_contract.port import CallContext, Options
from lexora_contract.rpcs import EXPLAIN, GET_KEY, GET_STATS, LIST_AUDIT_EVENTS, LIST_KEYS, LIST_RECENT_CALLS, RELOAD, Rpc
from lexora_router.access.key_source import KeyStore
from lexora_router.call import Call
from lexora_router.edge.audit_messages import WholeAudit
from lexora_router.edge.call_inputs import CallInputs
from lexora_router.edge.explain import Explainer
from lexora_router.edge.guard import Guard, within
from lexora_router.edge.key_rpcs import KeyRpcs
from lexora_router.edge.stats_messages import reload_message
from lexora_router.edge.whole_list import Others
from lexora_router.edge.whole_overview import WholeOverview
from lexora_router.errors import InvalidRequest, Unimplemented
from lexora_router.payload.fields import check_model

# Asked of the other workers when one has edited the file of keys: they read it now.
KEYS = "keys"
_READING = (GET_KEY, LIST_KEYS)
_NO_OPTIONS = Options()
_Answer = TypeVar("_Answer")


class AdminService(KeyRpcs):
    """Serves the rpcs of AdminService. Every method raises CallFailed, and nothing else, for a failed call."""

    def __init__(
        self,
        guard: Guard,
        overview: WholeOverview,
        inputs: CallInputs,
        *,
        explainer: Explainer | None = None,
        others: Others | None = None,
    ) -> None:
        super().__init__(guard)
        self._others = others
        self._audit = WholeAudit(guard.audit, others)
        self._whole = overview
        self._inputs = inputs
        self._explainer = explainer

    async def get_stats(self, request: stats_pb2.GetStatsRequest, context: CallContext) -> stats_pb2.GetStatsResponse:
        """Counters since the start."""
        return await self.guard.guarded(GET_STATS, _NO_OPTIONS, context, self._get_stats, always=True)

    async def _get_stats(self, call: Call) -> stats_pb2.GetStatsResponse:
        return await self._whole.stats()

    async def explain(self, request: explain_pb2.ExplainRequest, context: CallContext) -> explain_pb2.ExplainResponse:
        """Where a call would go and why."""
        options = request.call.options
        return await self.guard.guarded(EXPLAIN, options, context, lambda call: self._explain(request, call), always=True)

    async def _explain(self, request: explain_pb2.ExplainRequest, call: Call) -> explain_pb2.ExplainResponse:
        if self._explainer is None:
            raise Unimplemented("This router explains nothing.")
        asked = await self._asked(request, call)
        return await within(call, self._explainer.explain(call, asked, draining=self.guard.draining))

    async def _asked(self, request: explain_pb2.ExplainRequest, call: Call) -> str:
        """Make the call that is to be explained, with the errors that it would get; the model as its client named it."""
        kind = request.call.WhichOneof("input")
        if kind is None:
            check_model(request.model)
            call.path = CHAT
            named = without_secrets(request.model)
            call.model = await self._inputs.model(call, named) or ""
            return named
        await self._inputs.fill(kind, request.call, call, stream=kind == "raw")
        if call.response_id:
            raise InvalidRequest("A stored response is not routed: the endpoint that made it is asked.", "raw.path")
        return call.model if kind == "raw" else without_secrets(str(getattr(request.call, kind).model))

    async def list_recent_calls(
        self, request: recent_calls_pb2.ListRecentCallsRequest, context: CallContext
    ) -> recent_calls_pb2.ListRecentCallsResponse:
        """The calls that finished last."""
        return await self.guard.guarded(
            LIST_RECENT_CALLS, _NO_OPTIONS, context, partial(self._recent_calls, request), always=True
        )

    async def _recent_calls(
        self, request: recent_calls_pb2.ListRecentCallsRequest, call: Call
    ) -> recent_calls_pb2.ListRecentCallsResponse:
        return await self._whole.recent_calls(request)

    async def reload(self, request: reload_pb2.ReloadRequest, context: CallContext) -> reload_pb2.ReloadResponse:
        """Load the configuration again."""
        return await self.guard.administered(RELOAD, context, lambda call: within(call, self._reload()))

    async def _reload(self) -> reload_pb2.ReloadResponse:
        reload = self.guard.serving.reload
        if reload is None:
            raise Unimplemented("This router has its configuration from nowhere that it could be loaded from again.")
        return reload_pb2.ReloadResponse(report=reload_message(await reload()))

    async def _of_keys(
        self, rpc: Rpc[Any, Any], context: CallContext, answer: Callable[[KeyStore, str], Awaitable[_Answer]]
    ) -> _Answer:
        found = await super()._of_keys(rpc, context, answer)
        if self._others is not None and rpc not in _READING:
            await self._others.ask(KEYS)  # in force everywhere when the caller has its answer
        return found

    async def list_audit_events(
        self, request: audit_pb2.ListAuditEventsRequest, context: CallContext
    ) -> audit_pb2.ListAuditEventsResponse:
        """What was done of late."""

        async def serve(_: Call) -> audit_pb2.ListAuditEventsResponse:
            return await self._audit.page(request)

        return await self.guard.administered(LIST_AUDIT_EVENTS, context, serve, always=True)
