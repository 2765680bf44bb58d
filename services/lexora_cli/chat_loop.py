"""The conversation in a terminal: prompts, commands, Ctrl-C and Ctrl-D."""

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from lexora_cli.client import RouterClient, RouterFailure
from lexora_cli.conversation import Conversation
from lexora_contract.escape import escaped, escaped_lines

HELP = """/model         list the models, the chosen one marked
/model NAME    ask this model from now on
/reset         forget the conversation
/quit          leave (or Ctrl-D)
Ctrl-C stops an answer."""


class TerminalShow:
    """Writes an answer to a console as it comes, thoughts in dim."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._thinking = False
        self._raw = not console.is_terminal

    def text(self, text: str) -> None:
        """A piece of the answer."""
        if self._thinking:
            self._console.print("\n")
            self._thinking = False
        self._write(text, None)

    def reasoning(self, text: str) -> None:
        """A piece of thought; not part of the answer, so it is left out when the output is not a terminal."""
        if not self._raw:
            self._thinking = True
            self._write(text, "dim")

    def end(self) -> None:
        """The line's end after an answer."""
        self._thinking = False
        self._console.print()

    def _write(self, text: str, style: str | None) -> None:
        if self._raw:
            self._console.file.write(text)
            self._console.file.flush()
        else:
            self._console.print(escaped_lines(text), end="", style=style, markup=False)


class ChatLoop:
    """Reads lines with `read` (as `input`: EOFError and KeyboardInterrupt included) until the person leaves."""

    def __init__(self, client: RouterClient, conversation: Conversation, console: Console, read: Callable[[str], str]) -> None:
        self._client = client
        self._conversation = conversation
        self._console = console
        self._read = read

    def run(self) -> None:
        """Talk until /quit or Ctrl-D."""
        self._dim("/help lists the commands, Ctrl-D leaves")
        while True:
            try:
                line = self._read("> ").strip()
            except EOFError:
                self._console.print()
                return
            except KeyboardInterrupt:
                self._console.print()
                self._dim("Ctrl-D leaves")
                continue
            if line == "/quit":
                return
            if line:
                self._do(line)

    def _do(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        match word:
            case "/help":
                self._console.print(HELP, markup=False)
            case "/reset":
                self._conversation.reset()
                self._dim("forgotten")
            case "/model":
                self._model(rest.strip())
            case _ if word.startswith("/"):
                self._dim(f"no such command: {word}; /help lists them")
            case _:
                self._ask(line)

    def _model(self, name: str) -> None:
        if name:
            self._conversation.model = name
            self._dim(f"asking {name}")
            return
        try:
            listed = self._client.models()
        except RouterFailure as failure:
            self._error(failure)
            return
        for model in listed.models:
            mark = "*" if model.id == self._conversation.model else " "
            self._console.print(f"{mark} {escaped(model.id)} ({escaped(model.backend)})", markup=False)

    def _ask(self, prompt: str) -> None:
        show = TerminalShow(self._console)
        try:
            receipt = self._conversation.ask(prompt, show)
        except KeyboardInterrupt:
            show.end()
            self._dim("stopped")
        except RouterFailure as failure:
            show.end()
            self._error(failure)
        else:
            show.end()
            self._dim(receipt)

    def _dim(self, text: str) -> None:
        self._console.print(f"[dim]{escape(escaped(text))}[/dim]")

    def _error(self, failure: RouterFailure) -> None:
        self._console.print(f"[red]error:[/red] {escape(escaped(str(failure)))}")
