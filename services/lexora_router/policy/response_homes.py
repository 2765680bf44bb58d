"""Which engine made which response, and for which tenant: an id of /v1/responses means something to that engine only."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

MAX_RESPONSES = 10_000
# Engines forget theirs when they restart; what is older is asked everywhere.
TTL_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Home:
    """Where a response was made, the model that was asked, and the name that it has there.

    `tenant`: that of its caller; empty where callers show no credentials.
    """

    backend: str
    address: str
    model: str
    served: str
    tenant: str = ""


class ResponseHomes:
    """The homes of the latest responses by id: at most MAX_RESPONSES, each for TTL_SECONDS.

    The tenant with the most gives up its oldest one for a new one, so that none makes another's forgotten.
    """

    def __init__(self) -> None:
        self._homes: dict[str, tuple[Home, float]] = {}
        self._by_tenant: dict[str, OrderedDict[str, None]] = {}

    def put(self, response_id: str, home: Home, now: float) -> None:
        """Remember a response. One of another tenant stays what it is: its id may be a client's choice."""
        known = self.get(response_id, now)
        if known is not None and known.tenant != home.tenant:
            return
        self._forget(response_id)
        self._homes[response_id] = home, now + TTL_SECONDS
        self._by_tenant.setdefault(home.tenant, OrderedDict())[response_id] = None
        while len(self._homes) > MAX_RESPONSES:
            most = max(self._by_tenant.values(), key=len)
            self._forget(next(iter(most)))

    def get(self, response_id: str, now: float) -> Home | None:
        """Where a response was made; None when that is not known, or not any more."""
        found = self._homes.get(response_id)
        return found[0] if found is not None and now < found[1] else None

    async def find(self, response_id: str, now: float) -> Home | None:
        """As `get`; where replicas share what they have, also of the others."""
        return self.get(response_id, now)

    def known(self, now: float) -> Iterator[tuple[str, Home]]:
        """All of them, oldest first."""
        return ((response_id, home) for response_id, (home, until) in self._homes.items() if now < until)

    def _forget(self, response_id: str) -> None:
        found = self._homes.pop(response_id, None)
        if found is None:
            return
        tenant = found[0].tenant
        own = self._by_tenant[tenant]
        del own[response_id]
        if not own:
            del self._by_tenant[tenant]
