"""Entries of the audit log in the contract's words."""

from collections.abc import Sequence

from lexora.v1 import audit_pb2
from lexora_contract.times import timestamp
from lexora_router.access.audit import KEPT, AuditEvent, Fact
from lexora_router.edge.pages import after, page, page_size
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


def _message(event: AuditEvent) -> audit_pb2.AuditEvent:
    facts = {name: _text(fact) for name, fact in event.facts.items()}
    return audit_pb2.AuditEvent(event_time=timestamp(event.at), event=event.event, facts=facts)


def _text(fact: Fact) -> str:
    return ", ".join(fact) if not isinstance(fact, str | int) else str(fact)
