"""From what an rpc was given to the body of its call, with the errors that it gets."""

from lexora.v1 import call_pb2
from lexora_contract.messages import raw_of
from lexora_contract.operations import CHAT, COMPLETIONS
from lexora_router.call import Call
from lexora_router.edge.guard import Guard, within
from lexora_router.edge.requests import fill_raw, set_body
from lexora_router.edge.translate import chat_body, completion_body
from lexora_router.errors import InvalidRequest
from lexora_router.layers.authorize import default_of


class CallInputs:
    """Makes calls of messages of all three forms, within `max_body_bytes`."""

    def __init__(self, guard: Guard, max_body_bytes: int) -> None:
        self._guard = guard
        self.max_body_bytes = max_body_bytes

    async def fill(self, kind: str | None, asked: call_pb2.Call, call: Call, *, stream: bool) -> None:
        """Give the call its body. Raises InvalidRequest, and DeadlineExceeded where the model has to be found."""
        match kind:
            case "raw":
                call.body = call.body or asked.raw.body
                fill_raw(call, raw_of(asked.raw), stream=stream, max_body=self.max_body_bytes)
            case "chat":
                default = await self.model(call, asked.chat.model)
                set_body(call, CHAT, *chat_body(asked.chat, stream=stream, default_model=default), max_body=self.max_body_bytes)
            case "completion":
                default = await self.model(call, asked.completion.model)
                completion = completion_body(asked.completion, stream=stream, default_model=default)
                set_body(call, COMPLETIONS, *completion, max_body=self.max_body_bytes)
            case _:
                raise InvalidRequest("One of chat, completion and raw must be set.", "input")

    async def model(self, call: Call, named: str) -> str | None:
        """The model that is named, else the default one, for which the backends may have to be asked."""
        return named or default_of(call.principal, await within(call, self._guard.serving.default_model())) or None
