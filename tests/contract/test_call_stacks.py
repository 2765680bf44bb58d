"""What stands between an engine's read and a client's write, and between a call and the request to its engine."""

import asyncio
import traceback
from dataclasses import dataclass, field

import pytest

from lexora_contract.answer import Head, Receipt, Reply
from lexora_contract.inprocess import InProcessRouter
from lexora_contract.port import CallContext, RawCall
from lexora_router.engines.http1 import Connection
from tests.contract.conftest import config_of
from tests.contract.messages import delta
from tests.support.links import running
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import LAST_CHUNK, chunk, stream_head

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}'


def frames_from(name: str) -> list[tuple[str, str]]:
    """File and function of each frame of the product's since the outermost function of this name, the caller's included."""
    stack = [(frame.filename, frame.name) for frame in traceback.extract_stack()[:-2]]
    begin = next(number for number, (_, function) in enumerate(stack) if function == name)
    return [(filename, function) for filename, function in stack[begin:] if "lexora_" in filename]


@dataclass
class Client:
    """A sink that notes how it was called."""

    stacks: list[list[tuple[str, str]]] = field(default_factory=list)

    def accepted(self, receipt: Receipt, *, streams: bool) -> None: ...

    def head(self, head: Head) -> None: ...

    def reply(self, reply: Reply) -> None: ...

    def frames(self, data: bytes) -> None:
        self.stacks.append(frames_from("data_received"))


async def test_a_chunk_and_a_call_pass_few_functions(engine: LoopEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    script = [part for gate in gates for part in (chunk(delta("a")), gate)]
    engine.answer(stream_head(), *script, chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
    sent: list[list[tuple[str, str]]] = []
    send = Connection.send

    def watched(*args: object) -> None:
        if len(args[2]):  # type: ignore[arg-type]  # the body; a probe has none
            sent.append(frames_from("relay"))
        send(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(Connection, "send", watched)
    # All policies on: limits, retries, breakers as they are by default.
    config = config_of(engine.url, rate_limit={}, retry={}, health={})
    client, asked = Client(), RawCall(CHAT, "application/json", BODY)
    async with running(config) as (app, _):
        call = asyncio.create_task(InProcessRouter(app.service).relay(asked, CallContext(), client))
        for number, gate in enumerate(gates):
            async with asyncio.timeout(5):
                while len(client.stacks) <= number:  # noqa: ASYNC110 - a sink has no event
                    await asyncio.sleep(0.001)
            gate.set()
        await call
    later = client.stacks[1]
    assert len(later) <= 4, later
    assert len({filename for filename, _ in later}) <= 4, later
    assert sent
    assert len(sent[0]) <= 16, sent[0]
