import io
from collections.abc import Callable
from typing import cast

import pytest
from rich.console import Console
from tests.unit.cli.test_conversation import RECEIPT, delta

from lexora.v1.models_pb2 import ListModelsResponse, Model
from lexora.v1.router_pb2 import StreamRequest, StreamResponse
from lexora_cli.chat_loop import ChatLoop, TerminalShow
from lexora_cli.client import RouterClient, RouterFailure
from lexora_cli.conversation import Conversation


class Router:
    """A client with scripted answers, one for each question."""

    def __init__(self, *answers: list[StreamResponse | BaseException]) -> None:
        self.answers = list(answers)
        self.requests: list[StreamRequest] = []

    def stream(self, request: StreamRequest, on_message: Callable[[StreamResponse], None]) -> None:
        self.requests.append(request)
        for step in self.answers.pop(0):
            if isinstance(step, BaseException):
                raise step
            on_message(step)

    def models(self) -> ListModelsResponse:
        return ListModelsResponse(models=[Model(id="big", backend="main"), Model(id="small", backend="side")])


def talk(router: Router, *lines: str | BaseException) -> str:
    """The screen after these lines were typed and then Ctrl-D."""
    typed = iter([*lines, EOFError()])

    def read(prompt: str) -> str:
        line = next(typed)
        if isinstance(line, BaseException):
            raise line
        return line

    screen = io.StringIO()
    client = cast("RouterClient", router)
    ChatLoop(client, Conversation(client, "big"), Console(file=screen, width=100), read).run()
    return screen.getvalue()


def test_an_answer_and_its_receipt() -> None:
    screen = talk(Router([delta("Hel"), delta("lo"), RECEIPT]), "hi")
    assert "Hello\nmain · TTFT" in screen


def test_empty_lines_ask_nothing() -> None:
    router = Router()
    talk(router, "", "   ")
    assert router.requests == []


def test_ctrl_c_stops_an_answer_and_the_talk_goes_on() -> None:
    router = Router([delta("Once "), KeyboardInterrupt()], [delta("again")])
    screen = talk(router, "a story", "more")
    assert "Once \nstopped\n" in screen
    assert "again" in screen
    assert [message.text for message in router.requests[1].call.chat.messages] == ["a story", "Once ", "more"]


def test_ctrl_c_at_the_prompt_does_not_leave() -> None:
    router = Router([delta("here")])
    screen = talk(router, KeyboardInterrupt(), "hi")
    assert "Ctrl-D leaves" in screen
    assert "here" in screen


def test_a_failure_is_one_line_and_the_talk_goes_on() -> None:
    screen = talk(Router([RouterFailure("MODEL_NOT_FOUND: no [such] model")], [delta("here")]), "hi", "again")
    assert "error: MODEL_NOT_FOUND: no [such] model\n" in screen
    assert "here" in screen


def test_quit_leaves() -> None:
    router = Router()
    talk(router, "/quit", AssertionError("read on after /quit"))


def test_reset_forgets() -> None:
    router = Router([delta("one")], [delta("two")])
    talk(router, "first", "/reset", "second")
    assert [message.text for message in router.requests[1].call.chat.messages] == ["second"]


def test_model_lists_and_chooses() -> None:
    router = Router([delta("x")])
    screen = talk(router, "/model", "/model small", "hi", "/model")
    assert "* big (main)\n  small (side)\n" in screen
    assert "  big (main)\n* small (side)\n" in screen
    assert router.requests[0].call.chat.model == "small"


def test_help_and_unknown_commands() -> None:
    screen = talk(Router(), "/help", "/nonsense")
    assert "/model NAME" in screen
    assert "no such command: /nonsense" in screen


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "\x1b[2J", "\x9b2J", "a\rb"])
def test_an_engine_cannot_steer_the_terminal(text: str) -> None:
    screen = io.StringIO()
    show = TerminalShow(Console(file=screen, force_terminal=True, color_system=None))
    show.text(text)
    assert not set(screen.getvalue()) & set("\x1b\x07\x9b\r")


def test_what_is_piped_on_is_the_answer_untouched() -> None:
    screen = io.StringIO()
    show = TerminalShow(Console(file=screen, width=20))
    show.reasoning("hm")
    show.text("a" * 50 + "[red]\x1b")
    show.end()
    assert screen.getvalue() == "a" * 50 + "[red]\x1b\n"
