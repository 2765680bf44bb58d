"""From sequences to an answer: what chat, completions, responses and messages share."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import msgspec

from lexora_sim.api.errors import engine_dead, overloaded
from lexora_sim.api.exchange import JSON, Exchange
from lexora_sim.api.sampling import Sampling
from lexora_sim.engine.scheduler import Overloaded, Scheduler
from lexora_sim.engine.sequence import Sequence
from lexora_sim.faults.fault import Fault
from lexora_sim.text.detokenize import Detokenizer, StopScanner
from lexora_sim.text.language import Source

_ENGINE_DIED = (
    b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", '
    b'"type": "InternalServerError", "param": null, "code": 500}}\n\n'
)
DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Piece:
    """What one engine step adds to a choice; `text` may be empty while a character or stop string is open."""

    text: str
    ids: list[int]
    finish: str | None
    stop: str | int | None


@dataclass(slots=True, eq=False)
class Choice:
    """One answer under way."""

    index: int
    prompt: list[int]
    source: Source
    max_tokens: int
    ids: list[int] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)  # unary answers only
    finish: str | None = None
    stop: str | int | None = None
    sequence: Sequence | None = None

    @property
    def text(self) -> str:
        """The whole text of a unary answer."""
        return "".join([piece.text for piece in self.pieces])


class Face(Protocol):
    """How one endpoint words its answer."""

    def opening(self) -> Iterable[bytes]:
        """Return the events before the first token."""

    def delta(self, choice: Choice, piece: Piece) -> Iterable[bytes]:
        """Return the events of one step; `choice.ids` includes the piece's."""

    def closing(self) -> Iterable[bytes]:
        """Return the events after the last choice ended."""

    def failure(self) -> Iterable[bytes]:
        """Return the events that say the engine died."""

    def whole(self) -> dict[str, Any]:
        """Return the unary answer."""


class Generation:
    """Run the choices of one request and write their answer, faults included."""

    def __init__(
        self,
        scheduler: Scheduler,
        exchange: Exchange,
        model: str,
        *,
        sampling: Sampling,
        choices: list[Choice],
        face: Face,
    ) -> None:
        self._scheduler = scheduler
        self._exchange = exchange
        self._sampling = sampling
        self._choices = choices
        self._face = face
        self._open = len(choices)
        self._begun = False
        self._tokens = 0
        self._fault: Fault | None = exchange.fault
        self._limit = self._fault.number("", 1) if self._fault is not None and self._fault.value else 1
        self._detokenizers = [Detokenizer(choice.prompt) for choice in choices]
        self._scanners = [StopScanner(sampling.stops, include=sampling.include_stop) for _ in choices]
        for choice in choices:
            choice.sequence = self._sequence(model, choice)

    def start(self) -> None:
        """Submit the sequences; a stream's head goes out at once. Raises ApiError when the queue is full."""
        sequences = [choice.sequence for choice in self._choices if choice.sequence is not None]
        held = self._is("hang_headers")
        for sequence in sequences:
            sequence.frozen = held
        try:
            self._scheduler.submit(sequences)
        except Overloaded:
            raise overloaded() from None
        self._exchange.on_disconnect = self._abort
        self._exchange.on_writable = self._wake
        if self._sampling.stream:
            self._exchange.start_stream()
        elif held:
            self._exchange.hold_head()
        if self._limit == 0:
            self._strike()

    def _sequence(self, model: str, choice: Choice) -> Sequence:
        sampling = self._sampling
        stream, exchange = sampling.stream, self._exchange
        return Sequence(
            model=model,
            prompt=choice.prompt,
            source=choice.source,
            sink=partial(self._step, choice),
            max_tokens=choice.max_tokens,
            min_tokens=sampling.min_tokens,
            ignore_eos=sampling.ignore_eos,
            stop_ids=sampling.stop_ids,
            priority=sampling.priority,
            salt=sampling.salt,
            itl=self._fault.number("", 100) / 1000 if self._fault is not None and self._fault.kind == "drip" else None,
            n=sampling.n,
            ready=lambda: exchange.writable or not stream,
        )

    def _step(self, choice: Choice, ids: list[int], reason: str | None, stop_id: int | None) -> None:
        if choice.finish is not None or self._exchange.over:
            return
        if choice.sequence is not None and self._exchange.record.started is None:
            self._exchange.record.started = choice.sequence.admitted
        piece = self._piece(choice, ids, reason, stop_id)
        if piece.finish is not None:
            choice.finish, choice.stop = piece.finish, piece.stop
            self._open -= 1
        self._tokens += len(ids)
        self._exchange.record.tokens_sent = self._tokens
        if self._sampling.stream:
            self._send(choice, piece)
        else:
            choice.pieces.append(piece)
        if self._fault is not None and self._tokens >= self._limit and self._strike():
            return
        if not self._open:
            self._finish()

    def _piece(self, choice: Choice, ids: list[int], reason: str | None, stop_id: int | None) -> Piece:
        """Turn tokens into text; a stop string ends the sequence here."""
        push = self._detokenizers[choice.index].push
        if not self._sampling.stops:
            choice.ids += ids
            return Piece("".join([push(token) for token in ids]), ids, reason, stop_id)
        scanner = self._scanners[choice.index]
        text = ""
        for number, token in enumerate(ids):
            choice.ids.append(token)
            checked = len(choice.ids) > self._sampling.min_tokens
            more, stop = scanner.push(push(token), check=checked)
            text += more
            if stop is not None:
                if choice.sequence is not None:
                    self._scheduler.finish(choice.sequence, "stop")
                return Piece(text, ids[: number + 1], "stop", stop)
        if reason is not None:
            text += scanner.flush()
        return Piece(text, ids, reason, stop_id)

    def _send(self, choice: Choice, piece: Piece) -> None:
        exchange = self._exchange
        if not self._begun:
            self._begun = True
            for event in self._face.opening():
                exchange.send(event)
        for event in self._face.delta(choice, piece):
            if self._is("malformed") and self._tokens >= self._limit:
                self._fault = None
                exchange.send(event[: len(event) // 2] + b"\n\n")
            else:
                exchange.send(event)

    def _finish(self) -> None:
        if not self._sampling.stream:
            body = msgspec.json.encode(self._face.whole())
            self._exchange.respond(200, body[: len(body) // 2] if self._is("malformed") else body, JSON)
            return
        for event in self._face.closing():
            self._exchange.send(event)
        self._exchange.finish()

    def _strike(self) -> bool:
        """Do what the fault wants once its tokens are out; True when the answer is over or stands still."""
        fault = self._fault
        if fault is None:
            return False
        if fault.kind == "freeze_after":
            for choice in self._choices:
                if choice.sequence is not None:
                    self._scheduler.freeze(choice.sequence)
            return True
        if fault.kind != "die_after":
            return False
        self._fault = None
        self._die(fault.text("how", "rst"))
        return True

    def _die(self, how: str) -> None:
        exchange, stream = self._exchange, self._sampling.stream
        if how == "abort":
            self._end_choices("abort")
            return
        self._stop_sequences("error" if how == "error" else None)
        if how == "rst":
            exchange.kill("rst")
        elif how == "error" and stream:
            for event in self._face.failure():
                exchange.send(event)
            exchange.finish()
        elif how == "error":
            error = engine_dead()
            exchange.respond_json(error.status, error.body)
        elif stream:
            exchange.finish(terminate=how == "eof")
        else:
            exchange.cut_body()

    def _end_choices(self, reason: str) -> None:
        for choice in self._choices:
            if choice.finish is None and choice.sequence is not None:
                self._scheduler.finish(choice.sequence, reason)
                self._step(choice, [], reason, None)

    def _stop_sequences(self, reason: str | None) -> None:
        for choice in self._choices:
            if choice.sequence is not None:
                self._scheduler.finish(choice.sequence, reason)

    def _abort(self) -> None:
        self._stop_sequences(None)

    def _wake(self) -> None:
        for choice in self._choices:
            if choice.sequence is not None:
                self._scheduler.wake(choice.sequence)

    def _is(self, kind: str) -> bool:
        return self._fault is not None and self._fault.kind == kind


def failure_events() -> list[bytes]:
    """Return vLLM's in-band error and the end mark that follows it."""
    return [_ENGINE_DIED, DONE]


def new_hex() -> str:
    """Return 16 hexadecimal digits, as in response ids."""
    return f"{random.getrandbits(62) | 1 << 63:016x}"
