"""Homes of stored responses that all replicas have, and that outlive a restart of them."""

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from lexora_router.policy.response_homes import Home, ResponseHomes
from lexora_router.state.link import StateLink
from lexora_router.state.programs.responses import ResponsePut, ResponsesAnswer, ResponsesRequest

MAX_UNSAID = 10_000  # while the store is out of reach; the oldest are known to this replica only then
MAX_SAID = 128  # in one exchange, and as many that are asked for
MAX_LOOKS = 2  # at the store, of one call: the first exchange may have had no room for it

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Home).decode


class SharedResponses(ResponseHomes):
    """The homes of this process, and of the others by way of the store; also a Participant of the link.

    While the store is out of reach the homes of this process are all that there are.
    """

    program = "responses"

    def __init__(self, link: StateLink, clock: Callable[[], float]) -> None:
        super().__init__()
        self._link = link
        self._clock = clock
        self._unsaid: OrderedDict[str, ResponsePut] = OrderedDict()
        self._saying: list[ResponsePut] = []
        self._wanted: dict[str, int] = {}  # id -> calls that wait for it

    def put(self, response_id: str, home: Home, now: float) -> None:
        """Remember a response here, and say so with the next exchange."""
        super().put(response_id, home, now)
        if self.get(response_id, now) is not home:
            return  # it is another tenant's
        self._unsaid[response_id] = ResponsePut(response_id, home.tenant, _encode(home).decode())
        if len(self._unsaid) > MAX_UNSAID:
            self._unsaid.popitem(last=False)

    async def find(self, response_id: str, now: float) -> Home | None:
        """Where a response was made; one that is not known here is asked of the store, for `state.timeout` at most."""
        for _ in range(MAX_LOOKS):
            if (found := self.get(response_id, now)) is not None:
                return found
            self._wanted[response_id] = self._wanted.get(response_id, 0) + 1
            try:
                if not await self._link.exchanged():
                    break
            finally:
                if self._wanted[response_id] == 1:
                    del self._wanted[response_id]
                else:
                    self._wanted[response_id] -= 1
        return self.get(response_id, now)

    # What a Participant does.

    def ask(self, now: float) -> ResponsesRequest | None:
        """What was made here, and what calls ask for."""
        while self._unsaid and len(self._saying) < MAX_SAID:
            self._saying.append(self._unsaid.popitem(last=False)[1])
        if not self._saying and not self._wanted:
            return None
        return ResponsesRequest(self._saying, list(self._wanted)[:MAX_SAID])

    def hear(self, answer: ResponsesAnswer, now: float) -> None:
        """Remember what was found."""
        self._saying = []
        for found in answer.found:
            try:
                home = _decode(found.text)
            except msgspec.MsgspecError:
                continue  # of a later version
            if home.tenant == found.tenant:
                super().put(found.id, home, now)

    def alone(self, share: float, now: float) -> None:
        """What is not said yet is said later."""

    def together(self, now: float, *, fresh: bool) -> None:
        """Go on. A store that has lost its memory gets the homes of this process back."""
        if fresh:
            for response_id, home in self.known(now):
                if response_id not in self._unsaid and len(self._unsaid) < MAX_UNSAID:
                    self._unsaid[response_id] = ResponsePut(response_id, home.tenant, _encode(home).decode())
