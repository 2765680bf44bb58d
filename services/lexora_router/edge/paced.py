"""A synchronous sink as the pipeline's `emit`: for as long as the pipeline awaits each event."""

from lexora_contract.answer import Head
from lexora_contract.port import Flow, Gate, Sink
from lexora_router.call import Emit, Event, Frames


def paced(sink: Sink, flow: Flow) -> Emit:
    """Gives each event to `sink`, then waits while the client is paused."""
    gate = Gate()
    flow.attach(gate)

    async def emit(event: Event) -> None:
        if isinstance(event, Frames):
            sink.frames(event.data)
        elif isinstance(event, Head):
            sink.head(event)
        else:
            sink.reply(event)
        if flow.paused:
            await gate.passed()

    return emit
