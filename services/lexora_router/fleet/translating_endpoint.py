"""An endpoint whose engine serves some operations in another dialect than the client's."""

from dataclasses import replace

from lexora_contract.answer import Head, Reply
from lexora_contract.port import Sink
from lexora_router.adapters import Translation
from lexora_router.call import Call
from lexora_router.errors import UpstreamBroken, UpstreamRefused
from lexora_router.fleet.endpoint import HttpEndpoint


class TranslatingEndpoint(HttpEndpoint):
    """Asks in the engine's dialect, where usage, errors and ends of streams are read as ever, and answers in the client's."""

    async def attempt(self, call: Call, sink: Sink) -> None:
        """As HttpEndpoint does; raises InvalidRequest for what the engine's dialect cannot say."""
        translator = self.adapter.translators.get(call.path)
        if translator is None:
            await super().attempt(call, sink)
            return
        translation = translator(call.body, include_usage=call.include_usage)
        asked = replace(call, path=translation.path, body=translation.take_body())
        try:
            await super().attempt(asked, _Translated(translation, call, asked, sink))
        except UpstreamRefused as refused:
            raise translation.refusal(refused) from refused
        except UpstreamBroken as broken:
            broken.event = translation.error_event(broken.event) if broken.event else broken.event
            raise


class _Translated:
    """A sink that gets the engine's dialect, and gives the client's to another one."""

    __slots__ = ("_asked", "_call", "_sink", "_translation")

    def __init__(self, translation: Translation, call: Call, asked: Call, sink: Sink) -> None:
        self._translation = translation
        self._call = call
        self._asked = asked
        self._sink = sink

    def head(self, head: Head) -> None:
        """Status and headers."""
        self._call.begun = True
        self._asked.body = b""  # it is not held while the answer comes
        self._sink.head(head)

    def frames(self, data: bytes) -> None:
        """Whole events, of which the client may get none."""
        if translated := self._translation.feed(data):
            self._sink.frames(translated)

    def reply(self, reply: Reply) -> None:
        """A whole answer."""
        translated = self._translation.reply(reply)
        self._call.begun = True
        self._sink.reply(translated)
