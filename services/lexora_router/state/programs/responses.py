"""Whose the stored responses of engines are, and where: found by any replica, after a restart as well."""

from collections import OrderedDict

from msgspec import Struct

from lexora_router.state.program import ProgramKind, Turn, lua_beside

TTL_SECONDS = 24 * 3600.0
MAX_OF_TENANT = 10_000
MAX_RESPONSES = 200_000
MAX_CLEARED = 64  # in one exchange, of those whose time is over


class ResponsePut(Struct, array_like=True):
    """A response of a tenant; `text` says the rest. The id of another tenant's response stays what it is."""

    id: str
    tenant: str
    text: str


class ResponsesRequest(Struct):
    """`put`: responses that were made; `get`: ids that are asked for."""

    put: list[ResponsePut] = []
    get: list[str] = []


class ResponsesAnswer(Struct):
    """`found`: those of `get` that there are."""

    found: list[ResponsePut]


class Responses:
    """The memory of the program: at most MAX_OF_TENANT responses of each tenant, and MAX_RESPONSES of all."""

    def __init__(self) -> None:
        self._responses: OrderedDict[str, tuple[str, str, float]] = OrderedDict()  # id -> tenant, text, until
        self._of: dict[str, OrderedDict[str, None]] = {}

    def run(self, request: ResponsesRequest, turn: Turn) -> ResponsesAnswer:
        """Clear, then put, then get."""
        for _ in range(MAX_CLEARED):
            oldest = next(iter(self._responses), None)
            if oldest is None or self._responses[oldest][2] > turn.now:
                break
            self._forget(oldest)
        for put in request.put:
            known = self._responses.get(put.id)
            if known is not None and known[0] != put.tenant and known[2] > turn.now:
                continue
            self._forget(put.id)
            self._responses[put.id] = put.tenant, put.text, turn.now + TTL_SECONDS
            own = self._of.setdefault(put.tenant, OrderedDict())
            own[put.id] = None
            if len(own) > MAX_OF_TENANT:
                self._forget(next(iter(own)))
            if len(self._responses) > MAX_RESPONSES:
                self._forget(next(iter(self._responses)))
        found = list[ResponsePut]()
        for id in request.get:
            known = self._responses.get(id)
            if known is not None and known[2] > turn.now:
                found.append(ResponsePut(id, known[0], known[1]))
        return ResponsesAnswer(found)

    def _forget(self, id: str) -> None:
        known = self._responses.pop(id, None)
        if known is None:
            return
        own = self._of[known[0]]
        del own[id]
        if not own:
            del self._of[known[0]]


RESPONSES = ProgramKind(ResponsesRequest, ResponsesAnswer, Responses, lua_beside(__file__))
