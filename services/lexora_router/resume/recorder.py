"""The first engine's stream: written down as it passes, and freed of what only the router asked for."""

from lexora_router.errors import UpstreamInvalid
from lexora_router.payload.event_stream import data_of, events
from lexora_router.resume.fast_chunk import Glance
from lexora_router.resume.frames import StreamedChoice, choice_text, read_chunk, without_ids
from lexora_router.resume.progress import Progress


class StreamRecorder:
    """`feed` gives what the client may see; `failure` is what stopped it."""

    __slots__ = ("_glance", "_hide_ids", "_progress", "failure")

    def __init__(self, progress: Progress, *, hide_ids: bool) -> None:
        self._progress = progress
        self._hide_ids = hide_ids
        self._glance = Glance()
        self.failure: UpstreamInvalid | None = None

    def feed(self, block: bytes) -> bytes:
        """Whole events; at one that is not JSON only what came before it is given."""
        found = self._glance.look(block)
        if found is not None:
            return self._pass(block, *found)
        shown = []
        try:
            for event in events(block):
                shown.append(self._see(event))  # what came before a failure stays
        except UpstreamInvalid as failure:
            self.failure = failure
        return b"".join(shown)

    def _pass(self, event: bytes, text: bytes, token: bytes) -> bytes:
        self._progress.add_one(int(token), text.decode("utf-8", "replace"))
        if not self._hide_ids:
            return event
        return self._glance.write(text, None) if text else b""

    def _see(self, event: bytes) -> bytes:
        found = self._glance.look(event)
        if found is not None:
            return self._pass(event, *found)
        data = data_of(event)
        if not data.startswith(b"{"):
            self._progress.ended = self._progress.ended or data == b"[DONE]"
            return event
        chunk = read_chunk(data)
        if chunk is None or len(chunk.choices) > 1:
            self._progress.give_up()
            return event
        if chunk.prompt_token_ids is not None:
            self._progress.begin(chunk.prompt_token_ids)
        if not chunk.choices:
            self._progress.counted = True
            return event
        choice = chunk.choices[0]
        shown = self._note(choice)
        given = choice.token_ids is not None
        mine = given or choice.prompt_token_ids is not None or chunk.prompt_token_ids is not None
        if self._hide_ids and given and not shown:
            return b""
        if given:
            self._glance.learn(event)
        if self._hide_ids and mine:
            event = without_ids(event)
        if not self._progress.sample:
            self._progress.sample = data_of(event)
        return event

    def _note(self, choice: StreamedChoice) -> bool:
        """Write the choice down; whether there is anything in it besides ids."""
        progress, delta = self._progress, choice.delta
        if choice.prompt_token_ids is not None:
            progress.begin(choice.prompt_token_ids)
        if delta is not None and delta.tool_calls:
            progress.give_up()
            return True
        text, thinking = choice_text(choice)
        progress.add(choice.token_ids, text, thinking=thinking)
        if choice.finish_reason is not None:
            progress.finished = True
            return True
        return bool(text) or (delta is not None and delta.role is not None)
