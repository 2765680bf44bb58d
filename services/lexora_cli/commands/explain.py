"""`lexora explain`."""

from typing import Annotated

import typer

from lexora_cli.options import AsJson
from lexora_cli.reach import DEFAULT, Reach, asks_router
from lexora_cli.screen import fail, print_json, show

Model = Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="Model or alias; the default model if left out.")]
User = Annotated[str, typer.Option("--user", "-u", metavar="NAME", help="The user of the call; anonymous if left out.")]
Priority = Annotated[
    str | None,
    typer.Option(
        "--priority",
        "-p",
        metavar="PRIORITY",
        help="high, normal, low, or a number from 0 to 100; the user's own if left out.",
        autocompletion=lambda: ["high", "normal", "low"],
    ),
]
NoFallback = Annotated[bool, typer.Option("--no-fallback", help="As with x-lexora-fallback: never.")]
Timeout = Annotated[float | None, typer.Option(min=0.1, metavar="SECONDS", help="Deadline that the call would have.")]


@asks_router
def explain(
    *,
    model: Model = "",
    user: User = "",
    priority: Priority = None,
    no_fallback: NoFallback = False,
    timeout: Timeout = None,
    router: Reach = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show where a call would go now, and why.

    Nothing is sent and nothing is charged.

    The route of its model, the tenant and its rate limits, and of each backend the queue and every endpoint.
    Exit code 1 when the call would be refused, or when the router does not answer.

    \b
    Examples:
      lexora explain --model qwen3-32b
      lexora explain --model fast --user bob --priority high
      lexora explain --model qwen3-32b --no-fallback --json | jq -r .verdict
    """

    from lexora.v1.call_pb2 import Call
    from lexora.v1.explain_pb2 import VERDICT_REJECT, ExplainRequest
    from lexora.v1.options_pb2 import FALLBACK_POLICY_NEVER, FALLBACK_POLICY_UNSPECIFIED, CallOptions
    from lexora_cli.client import RouterFailure
    from lexora_cli.explain_text import explained
    from lexora_contract.plain import plain

    fallback = FALLBACK_POLICY_NEVER if no_fallback else FALLBACK_POLICY_UNSPECIFIED
    options = CallOptions(user=user, priority=None if priority is None else _number(priority), fallback=fallback)
    try:
        with router.client() as client:
            answer = client.explain(ExplainRequest(call=Call(options=options), model=model), timeout)
    except RouterFailure as failure:
        fail(str(failure))
    if as_json:
        print_json(plain(answer))
    else:
        show(explained(answer))
    raise typer.Exit(1 if answer.verdict == VERDICT_REJECT else 0)


def _number(priority: str) -> int:
    from lexora_contract.priority import parse_priority

    try:
        return parse_priority(priority)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--priority") from None
