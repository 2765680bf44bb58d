from collections.abc import Callable, Sequence

import pytest

from lexora.v1.chat_pb2 import ROLE_ASSISTANT, ROLE_SYSTEM, ROLE_USER, ChatChunk, ChatDelta
from lexora.v1.receipt_pb2 import AutoChoice, Receipt
from lexora.v1.router_pb2 import StreamRequest, StreamResponse
from lexora.v1.tokens_pb2 import Usage
from lexora_cli.client import RouterFailure
from lexora_cli.conversation import Conversation

RECEIPT = StreamResponse(completed={"receipt": Receipt(backend="main", usage=Usage(input_tokens=7, output_tokens=3))})


def delta(text: str = "", reasoning: str = "") -> StreamResponse:
    return StreamResponse(delta={"chat": ChatChunk(choices=[ChatDelta(text=text, reasoning=reasoning)])})


class Script:
    """A client that answers with messages, and raises what is scripted."""

    def __init__(self, *steps: StreamResponse | BaseException) -> None:
        self.steps: Sequence[StreamResponse | BaseException] = steps
        self.requests: list[StreamRequest] = []

    def stream(self, request: StreamRequest, on_message: Callable[[StreamResponse], None]) -> None:
        self.requests.append(request)
        for step in self.steps:
            if isinstance(step, BaseException):
                raise step
            on_message(step)


class Shown:
    def __init__(self) -> None:
        self.pieces: list[tuple[str, str]] = []

    def text(self, text: str) -> None:
        self.pieces.append(("text", text))

    def reasoning(self, text: str) -> None:
        self.pieces.append(("reasoning", text))


def said(conversation: Conversation) -> list[tuple[int, str]]:
    return [(message.role, message.text) for message in conversation.messages]


def test_pieces_are_shown_as_they_come_and_the_receipt_tells_the_cost() -> None:
    shown, client = Shown(), Script(delta(reasoning="hm"), delta("Hel"), delta("lo"), RECEIPT)
    line = Conversation(client).ask("hi", shown)
    assert shown.pieces == [("reasoning", "hm"), ("text", "Hel"), ("text", "lo")]
    parts = line.split(" · ")
    assert parts[0] == "main"
    assert parts[1].startswith("TTFT ")
    assert parts[2] == "7 tokens in, 3 out"
    assert parts[3].endswith(" tokens/s")


def test_a_receipt_without_usage_promises_nothing() -> None:
    line = Conversation(Script(StreamResponse(completed={"receipt": Receipt(backend="main")}))).ask("hi", Shown())
    assert line == "main"


HOP = {"from_backend": "main", "to_backend": "b", "reason": "ERROR_REASON_UPSTREAM_TIMEOUT"}


@pytest.mark.parametrize(
    ("receipt", "told"),
    [
        (Receipt(auto=AutoChoice(model="m", task_type="code", classifier="CLASSIFIER_RULES")), "m for code, by rules"),
        (Receipt(auto=AutoChoice(model="m", classifier="CLASSIFIER_DEFAULT")), "m for a task of unknown kind, by default"),
        (Receipt(hops=[HOP]), "fallback main->b;reason=UPSTREAM_TIMEOUT"),
        (Receipt(resume_method="RESUME_METHOD_TOKEN_IDS"), "resumed by token_ids"),
    ],
)
def test_what_was_not_as_asked_is_told(receipt: Receipt, told: str) -> None:
    receipt.backend = "b"
    line = Conversation(Script(StreamResponse(completed={"receipt": receipt}))).ask("hi", Shown())
    assert line == f"b · {told}"


def test_the_request_carries_what_was_asked_for() -> None:
    client = Script(delta("x"))
    Conversation(client, model="m", system="Be brief.", max_tokens=9).ask("hi", Shown())
    chat = client.requests[0].call.chat
    assert (chat.model, chat.sampling.max_tokens) == ("m", 9)
    assert [(message.role, message.text) for message in chat.messages] == [(ROLE_SYSTEM, "Be brief."), (ROLE_USER, "hi")]


def test_the_next_question_comes_with_the_history() -> None:
    client = Script(delta("one"))
    conversation = Conversation(client)
    conversation.ask("first", Shown())
    conversation.ask("second", Shown())
    assert [message.text for message in client.requests[1].call.chat.messages] == ["first", "one", "second"]
    conversation.reset()
    conversation.ask("third", Shown())
    assert [message.text for message in client.requests[2].call.chat.messages] == ["third"]


def test_a_question_that_failed_is_forgotten() -> None:
    conversation = Conversation(Script(RouterFailure("no")))
    with pytest.raises(RouterFailure):
        conversation.ask("hi", Shown())
    assert conversation.messages == []


def test_an_answer_that_was_stopped_is_remembered_as_far_as_it_was_seen() -> None:
    conversation = Conversation(Script(delta("Once "), KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        conversation.ask("a story", Shown())
    assert said(conversation) == [(ROLE_USER, "a story"), (ROLE_ASSISTANT, "Once ")]
