"""An endpoint whose engine serves some operations in another dialect than the client's."""

from collections.abc import Awaitable
from dataclasses import replace

from lexora_contract.answer import Head, Reply
from lexora_router.adapters import Translation
from lexora_router.call import Call, Emit, Event, Frames
from lexora_router.errors import UpstreamBroken, UpstreamRefused
from lexora_router.fleet.endpoint import HttpEndpoint


class TranslatingEndpoint(HttpEndpoint):
    """Asks in the engine's dialect, where usage, errors and ends of streams are read as ever, and answers in the client's."""

    async def attempt(self, call: Call, emit: Emit) -> None:
        """As HttpEndpoint does; raises InvalidRequest for what the engine's dialect cannot say."""
        translator = self.adapter.translators.get(call.path)
        if translator is None:
            await super().attempt(call, emit)
            return
        translation = translator(call.body, include_usage=call.include_usage)
        call = replace(call, path=translation.path, body=translation.body)
        try:
            await super().attempt(call, _translated(translation, emit))
        except UpstreamRefused as refused:
            raise translation.refusal(refused) from refused
        except UpstreamBroken as broken:
            broken.event = translation.error_event(broken.event) if broken.event else broken.event
            raise


def _translated(translation: Translation, emit: Emit) -> Emit:
    async def nothing() -> None:
        return

    def translated(event: Event) -> Awaitable[None]:
        if isinstance(event, Head):
            return emit(event)
        if isinstance(event, Reply):
            return emit(translation.reply(event))
        data = translation.feed(event.data)
        return emit(Frames(data)) if data else nothing()

    return translated
