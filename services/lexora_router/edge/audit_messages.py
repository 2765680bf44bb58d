"""Entries of the audit log in the contract's words."""

from collections.abc import Iterator, Sequence

from lexora.v1 import audit_pb2
from lexora_contract.times import timestamp
from lexora_router.access.audit import KEPT, AuditEvent, AuditLog, Fact
from lexora_router.edge.pages import after, page, page_size
from lexora_router.edge.whole_list import Others, WholeList
from lexora_router.errors import InvalidRequest

DEFAULT_EVENTS = 100


def audit_page(events: Sequence[AuditEvent], request: audit_pb2.ListAuditEventsRequest) -> audit_pb2.ListAuditEventsResponse:
    """The last events first, a page of them. Raises InvalidRequest."""
    size, last = page_size(request.page_size, default=DEFAULT_EVENTS, most=KEPT), after(request.page_token)
    if last is not None and not (len(last) == 1 and last[0].isascii() and last[0].isdigit()):
        raise InvalidRequest("page_token must be the next_page_token of an answer, as it is.", "page_token")
    older = (event for event in reversed(events) if last is None or event.number < int(last[0]))
    shown, token = page(older, size, lambda event: (str(event.number),))
    return audit_pb2.ListAuditEventsResponse(audit_events=[_message(event) for event in shown], next_page_token=token)


class WholeAudit:
    """The audit log of all workers, or of this process if it is the only one."""

    def __init__(self, audit: AuditLog, others: Others | None) -> None:
        self._audit = audit
        self._whole = None if others is None else WholeList("audit", self._entries, others, KEPT)

    async def page(self, request: audit_pb2.ListAuditEventsRequest) -> audit_pb2.ListAuditEventsResponse:
        """The last events first, a page of them. Raises InvalidRequest."""
        if self._whole is None:
            return audit_page(self._audit.events, request)
        size = page_size(request.page_size, default=DEFAULT_EVENTS, most=KEPT)
        shown, token = await self._whole.page(size, request.page_token)
        events = [audit_pb2.AuditEvent.FromString(message) for message in shown]
        return audit_pb2.ListAuditEventsResponse(audit_events=events, next_page_token=token)

    def _entries(self) -> Iterator[tuple[float, int, audit_pb2.AuditEvent]]:
        for event in self._audit.events:
            yield event.at, event.number, _message(event)


def _message(event: AuditEvent) -> audit_pb2.AuditEvent:
    facts = {name: _text(fact) for name, fact in event.facts.items()}
    return audit_pb2.AuditEvent(event_time=timestamp(event.at), event=event.event, facts=facts)


def _text(fact: Fact) -> str:
    return ", ".join(fact) if not isinstance(fact, str | int) else str(fact)
