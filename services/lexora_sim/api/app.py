"""The simulated server without its sockets: finds the endpoint of a request, and holds what all endpoints need."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from lexora_sim.api.early_faults import apply_early
from lexora_sim.api.errors import ApiError, bad_request, bug, detail, unknown_model
from lexora_sim.api.exchange import Exchange, Wire
from lexora_sim.api.fields import Fields
from lexora_sim.api.generation import new_hex
from lexora_sim.api.response_store import ResponseStore
from lexora_sim.engine.scheduler import Scheduler
from lexora_sim.faults.fault import BadFault, Fault, parse_fault
from lexora_sim.faults.registry import FaultRegistry
from lexora_sim.record import Stats
from lexora_sim.settings import SimSettings

if TYPE_CHECKING:
    from lexora_sim.wire.request import Request

Serve = Callable[["App", Exchange], None]
Methods = Mapping[str, Serve]
Routes = Callable[[str], Methods | None]

_log = logging.getLogger("lexora_sim")
_BODY_FAULT = re.compile(rb'"sim_fault"\s*:')
_BODY_MODEL = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')


class App:
    """Answers requests. Needs a running event loop.

    `routes` gives the methods of a path, None for a path that is not there.
    `refuse` and `accept_again` are what the socket's owner does for the fault of that name.
    """

    def __init__(self, settings: SimSettings, routes: Routes) -> None:
        self.settings = settings
        self.scheduler = Scheduler(settings)
        self.stats = Stats(settings)
        self.faults = FaultRegistry(settings.seed)
        self.responses = ResponseStore()
        self.fingerprint = f"vllm-{settings.version}-5e5e5e5e"
        self.stopping = False
        self.refuse: Callable[[Fault], None] = lambda _fault: None
        self.accept_again: Callable[[], None] = lambda: None
        self._routes = routes

    def serve(self, connection: Wire, request: Request) -> Exchange:
        """Answer one request, now or later; the exchange says when it is over."""
        record = self.stats.received(request, id(connection))
        exchange = Exchange(connection, request, record, with_request_id=self.settings.request_id_headers)
        try:
            self._dispatch(exchange)
        except ApiError as error:
            exchange.respond_json(error.status, error.body, error.headers)
        except Exception:  # the boundary: a bug must show as a 500 and a trace, not as bad HTTP
            _log.exception("%s %s failed", request.method, request.path)
            self._fail(exchange)
        return exchange

    def accept(self, exchange: Exchange, fields: Fields, model: str, priority: int) -> None:
        """Note what a valid request asked for."""
        exchange.record.model = model
        exchange.record.priority = priority

    def model_of(self, fields: Fields, *, pooling: bool) -> str:
        """Return the model a request names, the first one when it names none; raises ApiError."""
        name = fields.string("model")
        fields.check()
        mine, others = self.settings.models, self.settings.embedding_models
        if pooling:
            mine, others = others, mine
        if name is None or name in mine:
            return name or mine[0]
        if name in others:
            raise bad_request(f"The model `{name}` does not support this API.", "model")
        raise unknown_model(name, list(mine), pooling=pooling)

    def any_model(self, fields: Fields) -> str:
        """Return the model a request names, of either kind; raises ApiError."""
        everything = (*self.settings.models, *self.settings.embedding_models)
        name = fields.string("model")
        fields.check()
        if name is not None and name not in everything:
            raise unknown_model(name, list(everything), pooling=False)
        return name or everything[0]

    def answer_id(self, exchange: Exchange, prefix: str) -> str:
        """Return an answer's id: from the client's request id when it sent one."""
        return f"{prefix}-{exchange.request_id or new_hex()}"

    def describe(self) -> dict[str, Any]:
        """Return the counters of /sim/stats."""
        stats, scheduler = self.stats, self.scheduler
        return {
            "requests": stats.requests,
            "by_path": stats.by_path,
            "aborts": stats.aborts,
            "completed": stats.completed,
            "errors": stats.errors,
            "running": scheduler.running,
            "waiting": scheduler.waiting,
            "max_running": scheduler.max_running,
            "tokens_out": scheduler.tokens_out,
            "connections": stats.connections,
            "max_connections": stats.max_connections,
            "faults": stats.faults,
        }

    def _dispatch(self, exchange: Exchange) -> None:
        request = exchange.request
        if not request.path.startswith("/sim/"):
            if self._unauthorized(request):
                exchange.respond(401, b'{"error":"Unauthorized"}', "application/json", bare=True)
                return
            exchange.fault = self._fault(request)
            if exchange.fault is not None:
                exchange.record.fault = exchange.fault.kind
                self.stats.faults[exchange.fault.kind] += 1
                if apply_early(exchange, exchange.fault):
                    return
        methods = self._routes(request.path)
        if methods is None:
            raise detail(404)
        serve = methods.get(request.method)
        if serve is None:
            raise detail(405, [("allow", ", ".join(methods))])
        serve(self, exchange)

    def _fail(self, exchange: Exchange) -> None:
        if exchange.streaming:
            exchange.kill("rst")
        else:
            error = bug()
            exchange.respond_json(error.status, error.body)

    def _unauthorized(self, request: Request) -> bool:
        key = self.settings.api_key
        if key is None or not request.path.startswith("/v1"):
            return False
        return request.headers.get("authorization") != f"Bearer {key}"

    def _fault(self, request: Request) -> Fault | None:
        """Return the fault the request asks for, otherwise one the admin set; raises ApiError for a bad one."""
        text = request.headers.get("x-sim-fault")
        if text is None and _BODY_FAULT.search(request.body):
            text = _body_fault(request.body)
        if text is not None:
            try:
                return parse_fault(text)
            except BadFault as error:
                raise bad_request(str(error), "sim_fault") from None
        if not self.faults.active:
            return None
        found = _BODY_MODEL.search(request.body)
        return self.faults.pick(request.path, _decode_name(found.group(1)) if found else None)


def _body_fault(body: bytes) -> str | None:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    fault = value.get("sim_fault") if isinstance(value, dict) else None
    return fault if isinstance(fault, str) else None


def _decode_name(raw: bytes) -> str | None:
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
