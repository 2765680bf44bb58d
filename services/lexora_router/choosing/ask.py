"""Calls that the router makes itself, through its own pipeline: with slots, retries and deadlines, seen by log and metrics."""

from collections.abc import Callable
from dataclasses import dataclass

from lexora_contract.answer import Headers
from lexora_contract.priority import HIGH
from lexora_router.call import Call, Handler, WholeAnswer

# Whose calls they are: an account of its own in the queues, which may be given a weight and a priority under `tenants`.
TENANT = "lexora-classifier"
_MAX_ID = 118
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Cause:
    """The client's call behind a question, for logs and traces; `deadline` (monotonic seconds) is the question's own.

    `cache_salt` is that of the client's tenant, whose text is asked about.
    """

    id: str
    trace: Headers
    deadline: float
    cache_salt: str = ""


class Ask:
    """Asks an engine. `handler` is a pipeline without rate limits: the client's own limit has let its call in already."""

    def __init__(self, handler: Handler, clock: Callable[[], float]) -> None:
        self._handler = handler
        self._clock = clock

    async def __call__(self, path: str, model: str, body: bytes, cause: Cause) -> bytes:
        """The body of a whole answer; raises RouterError."""
        call = Call(
            id=f"{cause.id[:_MAX_ID]}-classify",
            path=path,
            body=body,
            content_type=_JSON,
            model=model,
            stream=False,
            started=self._clock(),
            user=TENANT,
            priority=HIGH,  # a client waits for it before its own call begins
            max_tokens=0,
            deadline=cause.deadline,
            trace=cause.trace,
            cache_salt=cause.cache_salt,
        )
        sink = WholeAnswer(lambda reply: reply.body)
        await self._handler(call, sink)
        return sink.answer
