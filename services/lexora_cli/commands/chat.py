"""`lexora chat`."""

from typing import TYPE_CHECKING, Annotated

import typer

from lexora_cli.reach import DEFAULT, Reach, asks_router
from lexora_cli.screen import err, fail, out

if TYPE_CHECKING:
    from lexora_cli.client import RouterClient
    from lexora_cli.conversation import Conversation

_MAX_PROMPT_BYTES = 16 * 2**20


@asks_router
def chat(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="Ask this and leave. Piped input does the same.", show_default=False),
    ] = None,
    router: Reach = DEFAULT,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME", help="Model to ask; the router's default when absent.")
    ] = "",
    system: Annotated[str, typer.Option("--system", "-s", metavar="TEXT", help="Instructions to the model.")] = "",
    max_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most tokens of an answer.", show_default=False)
    ] = None,
) -> None:
    """Talk with a model in the terminal, over gRPC.

    Ctrl-C stops an answer, Ctrl-D leaves, /help shows the rest.

    \b
    Examples:
      lexora chat
      lexora chat --model qwen3-32b --system "Answer in one sentence."
      lexora chat "What is a token bucket?"
      git diff | lexora chat --system "Review this change."
    """
    import sys

    from lexora_cli.conversation import Conversation

    if prompt is None and not sys.stdin.isatty():
        prompt = _piped()
    if prompt is not None and not prompt.strip():
        fail("there is nothing to ask: the prompt is empty", 2)
    with router.client() as client:
        conversation = Conversation(client, model, system, max_tokens)
        if prompt is None:
            _talk(client, conversation)
        else:
            _ask_once(conversation, prompt)


def _piped() -> str:
    import sys

    data = sys.stdin.buffer.read(_MAX_PROMPT_BYTES + 1)
    if len(data) > _MAX_PROMPT_BYTES:
        fail(f"the input is longer than {_MAX_PROMPT_BYTES} bytes")
    return data.decode("utf-8", "replace").strip()


def _ask_once(conversation: "Conversation", prompt: str) -> None:
    """The answer goes to stdout, everything else to stderr, so that the answer can be piped on."""
    from rich.markup import escape

    from lexora_cli.chat_loop import TerminalShow
    from lexora_cli.client import RouterFailure
    from lexora_contract.escape import escaped

    show = TerminalShow(out())
    try:
        receipt = conversation.ask(prompt, show)
    except RouterFailure as failure:
        if conversation.messages:
            show.end()
        fail(str(failure))
    except KeyboardInterrupt:
        show.end()
        raise typer.Exit(130) from None
    show.end()
    err().print(f"[dim]{escape(escaped(receipt))}[/dim]")


def _talk(client: "RouterClient", conversation: "Conversation") -> None:
    import contextlib

    from lexora_cli.chat_loop import ChatLoop

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its line editing and history, where it exists
    ChatLoop(client, conversation, out(), input).run()
