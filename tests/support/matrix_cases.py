"""What the retry and fallback matrix is made of: kinds of failure, routes through the gateway, settings of the gateway.

Engines: `first` fails in the way of the kind whatever it is asked. `second` is well, except where the route says otherwise, and
comes second in every pool because it is the busier one. `spare` is the fallback, well under the model name "spare" and as bad
as `first` under "worse". `dead` was well when the gateways began and is gone now, `away` never answers a connection.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.servers import base_config

FAR_DATE = "Wed, 01 Jan 2098 00:00:00 GMT"
SILENCE_SECONDS = 0.5  # far above what an answer takes, even on a busy machine
TOKENS = 8
STRUCK_AT = 6  # tokens before a failure in mid-answer: enough that some have certainly left the gateway
ENDLESS = 1_000_000  # a threshold that no matrix reaches


@dataclass(frozen=True)
class Kind:
    """One way to fail. `fault` is the simulator's, None when the engine itself is gone or cannot be reached."""

    name: str
    fault: str | None
    text: str
    engine: str = "first"
    silent: bool = False


@dataclass(frozen=True)
class Route:
    """A backend of that name, its engines, its fallbacks as (engine, model name there), and what the client forbids."""

    name: str
    text: str
    engines: tuple[str, ...] = ("first",)
    spares: tuple[str, ...] = ()
    forbids: bool = False


@dataclass(frozen=True)
class Variant:
    """Settings of one gateway, and which kinds and routes say something about them."""

    name: str
    text: str
    kinds: tuple[str, ...]
    routes: tuple[str, ...]
    retry: Mapping[str, Any] = field(default_factory=dict)
    fallback: Mapping[str, Any] = field(default_factory=dict)


def _status(code: int, *, wait: str = "", body: str = "") -> str:
    parts = [f"status;code={code}", f"retry_after={wait}" if wait else "", f"body={body}" if body else ""]
    return ";".join(part for part in parts if part)


def _deaths(tokens: int) -> list[Kind]:
    when = f"after {tokens} tokens" if tokens else "before the first token"
    ways = {
        "rst": f"the connection is reset {when}",
        "fin": f"the connection is closed {when}",
        "eof": f"a stream ends in order, without its end mark, {when}",
        "error": f"the engine's error event {when}, which says 500; a unary answer is 500",
        "abort": f"finish_reason abort {when}",
    }
    return [Kind(f"die-{tokens}-{how}", f"die_after={tokens};how={how}", text) for how, text in ways.items()]


_ALL = (
    Kind("400", _status(400), "the client's fault"),
    Kind("401", _status(401), "the engine does not know the key"),
    Kind("404", _status(404), "the engine does not know the model"),
    Kind("422", _status(422), "the client's fault"),
    Kind("429", _status(429), "busy, and no word about when to come back"),
    Kind("429-soon", _status(429, wait="0.1"), "busy; Retry-After is short"),
    Kind("429-later", _status(429, wait="30"), "busy; Retry-After is above max_retry_after"),
    Kind("429-date", _status(429, wait=FAR_DATE), "the same as a date"),
    Kind("500", _status(500), "an error that trying the same engine again does not mend"),
    Kind("500-html", _status(500, body="html"), "the same from something that is no engine"),
    Kind("502", _status(502), "a proxy has lost its engine"),
    Kind("502-html", _status(502, body="html"), "the same with a proxy's page"),
    Kind("503", _status(503), "overloaded, or not ready"),
    Kind("503-empty", _status(503, body="empty"), "the same without a body"),
    Kind("503-soon", _status(503, wait="0.1"), "the same; Retry-After is short"),
    Kind("503-later", _status(503, wait="30"), "the same; Retry-After is above max_retry_after"),
    Kind("504", _status(504), "a proxy has waited too long"),
    Kind("reset", "reset", "RST before any byte"),
    Kind("hang", "hang", "not even headers", silent=True),
    Kind("hang-headers", "hang_headers", "headers, then nothing", silent=True),
    Kind("freeze-0", "freeze_after=0", "silence before the first token, while /health is fine", silent=True),
    *_deaths(0),
    Kind("html", "html", "200 with a page"),
    Kind("invalid-json", "invalid_json", "200 with half of an answer"),
    Kind("empty", "empty", "200 with nothing"),
    Kind("freeze-6", f"freeze_after={STRUCK_AT}", f"silence after {STRUCK_AT} tokens, while /health is fine", silent=True),
    *_deaths(STRUCK_AT),
    Kind("drip", "drip=20", "slow, but well"),
    Kind("split", "split;bytes=5", "in pieces of five bytes, but well"),
    Kind("slow-body", "slow_body;bytes=64;ms=1", "in slow pieces, but well"),
    Kind("refused", None, "nothing listens there any more", engine="dead"),
    Kind("no-connection", None, "the address does not answer", engine="away"),
)
KINDS = {kind.name: kind for kind in _ALL}

_ROUTES = (
    Route("solo", "one endpoint"),
    Route("once", "one endpoint that fails the first time only", ("second",)),
    Route("duo", "two endpoints, the second one is well", ("first", "second")),
    Route("both", "two endpoints, both fail", ("first", "second")),
    Route("net", "one endpoint and a fallback", spares=("spare",)),
    Route("chain", "one endpoint and two fallbacks, the first of them fails too", spares=("worse", "spare")),
    Route("lost", "one endpoint and a fallback that fails too", spares=("worse",)),
    Route("shy", "as net, but the client forbids a fallback", spares=("spare",), forbids=True),
)
ROUTES = {route.name: route for route in _ROUTES}
# Where the failing engine is not a simulator that could fail once, or fail under another name.
PLAIN_ROUTES = ("solo", "duo", "net", "shy")
# Where silence would have to be waited for many times, and says no more than on the others.
LONG_ROUTES = ("both", "chain", "lost")

_BUSY = ("429", "429-soon", "429-later", "429-date", "503", "503-soon", "503-later")
_ONE_OF_EACH = ("400", "429", "500", "503-later", "reset", "hang", "die-0-fin", "html", "die-6-rst", "refused")

VARIANTS = (
    Variant("usual", "max_retries 1, Retry-After respected up to 1 s, fallback on, also for 429", tuple(KINDS), tuple(ROUTES)),
    Variant("no-retries", "as usual with max_retries 0", tuple(KINDS), ("solo", "duo", "net"), retry={"max_retries": 0}),
    Variant(
        "no-fallback-for-429",
        "as usual with fallback.on_rate_limit off",
        (*_BUSY, "500"),
        ("net", "chain"),
        fallback={"on_rate_limit": False},
    ),
    Variant("no-fallback", "as usual with fallback.enabled off", _ONE_OF_EACH, ("net",), fallback={"enabled": False}),
    Variant(
        "impatient",
        "as usual with respect_retry_after off",
        _BUSY,
        ("solo", "once", "net"),
        retry={"respect_retry_after": False},
    ),
    Variant("no-budget", "as usual with no retry budget", _ONE_OF_EACH, ("solo", "duo", "net"), retry={"budget_floor": 0.0}),
)


def backend_name(route: str, kind: Kind) -> str:
    """Routes of engines that are gone are backends of their own."""
    return route if kind.engine == "first" else f"{route}-{kind.engine}"


def route_names(kind: Kind, variant: Variant) -> list[str]:
    """The routes on which a kind is tried."""
    names = [name for name in variant.routes if kind.engine == "first" or name in PLAIN_ROUTES]
    if kind.engine == "away":
        names = [name for name in names if name != "duo"]  # known to be down from the start
    return [name for name in names if not (kind.silent and name in LONG_ROUTES)]


def once_model(variant: Variant) -> str:
    """Under this name `second` fails the first call of a variant."""
    return f"once-{variant.name}"


def config(variant: Variant, urls: Mapping[str, str]) -> dict[str, Any]:
    """The gateway's configuration; `urls` by engine."""
    backends: dict[str, dict[str, Any]] = {}
    for kind in (KINDS["reset"], KINDS["refused"], KINDS["no-connection"]):
        for name in route_names(kind, variant):
            backends[backend_name(name, kind)] = _backend(ROUTES[name], kind, variant, urls)
    shared = {"url": urls["spare"], "first_token_timeout": SILENCE_SECONDS, "idle_timeout": SILENCE_SECONDS}
    for spare in ("worse", "spare"):
        backends[spare] = shared | {"models": [spare], "fallback_models": dict.fromkeys(backends, spare)}
    budget = {"budget": 0.0 if "budget_floor" in variant.retry else 1.0, "budget_floor": 1000.0}
    delays = {"max_retries": 1, "base_delay": 0.01, "max_delay": 0.02, "max_retry_after": 1.0}
    found = base_config(**backends)
    found["retry"] = {**budget, **delays, **variant.retry}
    found["fallback"] = dict(variant.fallback)
    # One probe at the start, and no breaker: every call meets the engines as if it were the first.
    found["health"] = {
        "interval": 3600.0,
        "timeout": 1.0,
        "failure_threshold": ENDLESS,
        "min_calls": ENDLESS,
        "quarantine": False,
    }
    return found


def _backend(route: Route, kind: Kind, variant: Variant, urls: Mapping[str, str]) -> dict[str, Any]:
    name = backend_name(route.name, kind)
    engines = [kind.engine if engine == "first" else engine for engine in route.engines]
    found: dict[str, Any] = {
        "urls": [urls[engine] for engine in engines],
        "models": [name],
        "fallback_backends": list(route.spares),
        "first_token_timeout": SILENCE_SECONDS,
        "idle_timeout": SILENCE_SECONDS,
        "connect_timeout": 0.2,
    }
    if route.name == "once":
        found["model_mapping"] = {name: once_model(variant)}
    return found
