"""Engines for tests of continued streams: the simulator's language and wording, without sockets, cut wherever a test wants."""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.unit.router.support import Frames, give

from lexora_contract.answer import Head, Usage
from lexora_contract.port import Sink
from lexora_router.call import Call, Endpoint, Outcome
from lexora_router.errors import RouterError, UpstreamBroken
from lexora_sim.api.chat_face import ChatFace, ChatOptions
from lexora_sim.api.completion_face import CompletionFace, CompletionOptions
from lexora_sim.api.generation import Choice, Piece
from lexora_sim.api.sampling import Sampling
from lexora_sim.text.detokenize import Detokenizer, StopScanner
from lexora_sim.text.language import Language
from lexora_sim.text.template import chat_ids
from lexora_sim.text.vocabulary import EOS, VOCABULARY

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HEAD = Head(200, "text/event-stream")
BROKEN = UpstreamBroken("The connection to the engine broke in mid-answer.")


@dataclass
class Model:
    """How engines answer: `sizes` are tokens per event, over and over.

    `blunt`: a character that the prompt has begun is lost, as real engines lose it.
    """

    natural: int = 1000
    sizes: Sequence[int] = (1,)
    reasoning: int = 0
    gives_ids: bool = True
    blunt: bool = True

    def answer(self, path: str, body: dict[str, Any], name: str = "a") -> list[bytes]:
        """All events of a streamed answer, the usage and the end mark among them."""
        sampling = _sampling(body, ids=self.gives_ids)
        prompt = _prompt(path, body)
        most = body.get("max_completion_tokens") or body.get("max_tokens") or (64 if path == CHAT else 16)
        choice = Choice(0, prompt, Language(prompt, sampling.seed, self.natural), most)
        common: dict[str, Any] = {"created": len(name), "model": f"m-{name}", "fingerprint": f"fp-{name}"}
        face: ChatFace | CompletionFace
        if path == CHAT:
            options = ChatOptions(reasoning_tokens=self.reasoning)
            face = ChatFace(
                identity=f"chatcmpl-{name}", choices=[choice], sampling=sampling, options=options, call=None, **common
            )
        else:
            shown = CompletionOptions(None, echo=False, details=False)
            face = CompletionFace(identity=f"cmpl-{name}", choices=[choice], sampling=sampling, options=shown, **common)
        found = list(face.opening())
        for piece in self._pieces(choice, sampling):
            found += face.delta(choice, piece)
        return found + list(face.closing())

    def _pieces(self, choice: Choice, sampling: Sampling) -> Iterator[Piece]:
        """As the simulator makes them: a stop string holds its length back, less one."""
        push = Detokenizer([] if self.blunt else choice.prompt).push
        scanner = StopScanner(sampling.stops, include=False)
        made = 0
        end: str | None = None
        for size in itertools.cycle(self.sizes):
            if end is not None:
                return
            ids: list[int] = []
            text, stop = "", None
            while end is None and len(ids) < size:
                token = choice.source.next(may_end=not sampling.ignore_eos and made >= sampling.min_tokens)
                made += 1
                ids.append(token)
                choice.ids.append(token)
                more, stop = scanner.push(push(token), check=made > sampling.min_tokens)
                text += more
                if token == EOS or stop is not None:
                    end = "stop"
                elif made >= choice.max_tokens:
                    end = "length"
            if end is not None and stop is None:
                text += scanner.flush()
            yield Piece(text, ids, end, stop)


def _sampling(body: dict[str, Any], *, ids: bool) -> Sampling:
    options = body.get("stream_options") or {}
    stop = body.get("stop") or []
    return Sampling(
        seed=body.get("seed") or 0,
        min_tokens=body.get("min_tokens") or 0,
        ignore_eos=bool(body.get("ignore_eos")),
        stops=[stop] if isinstance(stop, str) else stop,
        stream=True,
        include_usage=True,
        continuous_usage=bool(options.get("continuous_usage_stats")),
        return_token_ids=ids and bool(body.get("return_token_ids")),
    )


def _prompt(path: str, body: dict[str, Any]) -> list[int]:
    if path == CHAT:
        continued = bool(body.get("continue_final_message"))
        return chat_ids(body["messages"], add_generation_prompt=not continued, continue_final_message=continued)
    prompt = body["prompt"]
    return VOCABULARY.encode(prompt) if isinstance(prompt, str) else prompt


class NoEndpoint:
    """An endpoint by name only."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def attempt(self, call: Call, sink: Sink, /) -> None:
        raise AssertionError("the fleet serves")


@dataclass
class FakeLease:
    """A place at endpoints that are tried in turn."""

    names: Sequence[str]
    tried: int = 0

    async def next(self) -> Endpoint:
        self.tried += 1
        return NoEndpoint(self.names[self.tried - 1])

    def may_go_on(self) -> bool:
        return True

    def has_untried(self) -> bool:
        return self.tried < len(self.names)

    def has_sound(self) -> bool:
        return self.has_untried()

    def rest(self, seconds: float) -> None: ...

    def answered(self) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...

    def pause(self) -> None: ...


Death = tuple[int, RouterError]  # after so many events


@dataclass
class Fleet:
    """The handler below the layer: each attempt goes to the lease's next engine, and dies as `deaths` says."""

    deaths: Iterable[Death | None] = ()
    model: Model = field(default_factory=Model)
    per_frame: int = 1  # events in one piece
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._deaths = iter(self.deaths)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(call.body) for call in self.calls]

    async def __call__(self, call: Call, sink: Sink) -> None:
        assert call.lease is not None
        endpoint = await call.lease.next()
        self.calls.append(call)
        receipt = call.receipt
        receipt.attempts += 1
        receipt.endpoint = endpoint.address
        death = next(self._deaths, None)
        events = self.model.answer(call.path, json.loads(call.body), endpoint.address)
        usage, shown = _without_usage(events, hide=not call.include_usage)
        alive = shown if death is None else shown[: min(death[0], len(shown) - 1)]  # never after the end mark
        for at in range(0, len(alive), self.per_frame):
            if not receipt.first_event_at:
                receipt.first_event_at = 1.0
                give(call, sink, HEAD)
            block = b"".join(alive[at : at + self.per_frame])
            receipt.events += block.count(b"data:")
            give(call, sink, Frames(block))
        if death is not None:
            raise death[1]
        receipt.usage = usage


def _without_usage(events: list[bytes], *, hide: bool) -> tuple[Usage, list[bytes]]:
    """The usage, and the events as an endpoint passes them on."""
    at = next(at for at, event in enumerate(events) if b'"choices":[],' in event)
    counts = json.loads(events[at][6:])["usage"]
    usage = Usage(counts["prompt_tokens"], counts["completion_tokens"])
    return usage, [event for number, event in enumerate(events) if number != at or not hide]


# -- what the client got


def chunks(data: bytes) -> list[Any]:
    return [json.loads(event[6:]) for event in data.split(b"\n\n") if event.startswith(b"data: {")]


def text_of(data: bytes) -> str:
    """All text, of chat or completions."""
    parts = [choice.get("delta", choice) for chunk in chunks(data) for choice in chunk["choices"]]
    return "".join(part.get("content") or part.get("text") or "" for part in parts)


def ids_of(data: bytes) -> list[int]:
    return [token for chunk in chunks(data) for choice in chunk["choices"] for token in choice.get("token_ids") or []]
