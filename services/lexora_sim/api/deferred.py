"""Answers that need the engine for a prefill only: embeddings, scores, transcriptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from lexora_sim.api.errors import engine_dead, overloaded
from lexora_sim.api.exchange import JSON
from lexora_sim.engine.scheduler import Overloaded
from lexora_sim.engine.sequence import Sequence
from lexora_sim.text.language import Forced

if TYPE_CHECKING:
    from lexora_sim.api.app import App
    from lexora_sim.api.exchange import Exchange


def json_body(value: Any) -> tuple[bytes, str]:
    """Return a body and its content type."""
    return msgspec.json.encode(value), JSON


def after_prefill(
    app: App, exchange: Exchange, model: str, prompts: list[list[int]], answer: Callable[[], tuple[bytes, str]]
) -> None:
    """Run the prompts through the engine, then respond with what `answer` makes; raises ApiError when it is full."""
    left = len(prompts)

    def step(_ids: list[int], reason: str | None, _stop: int | None) -> None:
        nonlocal left
        left -= 1
        if left == 0 and not exchange.over:
            exchange.record.started = sequences[0].admitted
            _respond(exchange, "abort" if reason == "abort" else None, answer)

    sequences = [Sequence(model=model, prompt=prompt, source=Forced([]), sink=step, max_tokens=0, n=1) for prompt in prompts]
    stuck = exchange.fault is not None and exchange.fault.kind in ("hang_headers", "freeze_after")
    for sequence in sequences:
        sequence.frozen = stuck

    def leave() -> None:
        for sequence in sequences:
            app.scheduler.finish(sequence, None)

    try:
        app.scheduler.submit(sequences)
    except Overloaded:
        raise overloaded() from None
    exchange.on_disconnect = leave
    if stuck and exchange.fault is not None and exchange.fault.kind == "hang_headers":
        exchange.hold_head()


def _respond(exchange: Exchange, reason: str | None, answer: Callable[[], tuple[bytes, str]]) -> None:
    fault = exchange.fault
    how = fault.text("how", "rst") if fault is not None and fault.kind == "die_after" else None
    if how == "rst":
        exchange.kill("rst")
    elif how in ("fin", "eof"):
        exchange.cut_body()
    elif how is not None or reason is not None:
        error = engine_dead()
        exchange.respond_json(error.status, error.body)
    else:
        body, content_type = answer()
        broken = fault is not None and fault.kind == "malformed"
        exchange.respond(200, body[: len(body) // 2] if broken else body, content_type)
