"""What calls are served with under one configuration."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lexora_router.access.access import Access, OpenAccess
from lexora_router.access.forwarders import Forwarders
from lexora_router.access.key_source import KeyStore
from lexora_router.call import Call, Handler
from lexora_router.edge.classify import Classifier
from lexora_router.layers.rate_limit import Meter
from lexora_router.policy.callers import TrustedProxies
from lexora_router.telemetry.reloads import Reload


async def _no_model() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Serving:
    """What calls are served with under one configuration; None where the router does not do it.

    `foresee` raises RouterError for a call that would surely be refused with a body of so many bytes; `default_model` names
    the model of calls that name none, empty when there is none.
    """

    pipeline: Handler
    access: Access = field(default_factory=OpenAccess)
    keys: KeyStore | None = None
    forwarders: Forwarders | None = None
    meter: Meter | None = None
    classify: Classifier | None = None
    foresee: Callable[[Call, int], None] | None = None
    proxies: TrustedProxies = field(default_factory=lambda: TrustedProxies(()))
    reload: Callable[[], Awaitable[Reload]] | None = None
    default_model: Callable[[], Awaitable[str]] = _no_model
