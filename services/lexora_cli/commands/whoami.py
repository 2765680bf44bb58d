"""`lexora whoami`."""

import typer

from lexora_cli.options import AsJson
from lexora_cli.reach import DEFAULT, Reach, asks_router
from lexora_cli.screen import fail, plain, print_json


@asks_router
def whoami(router: Reach = DEFAULT, as_json: AsJson = False) -> None:
    """Show which caller the key in $LEXORA_API_KEY makes.

    Exit code 1 when the router does not take it.

    \b
    Examples:
      LEXORA_API_KEY=$KEY lexora whoami
      lexora whoami --router 10.0.0.5:50051 --json
    """
    from lexora.v1.principal_pb2 import Scope
    from lexora_cli.client import RouterFailure
    from lexora_contract.enums import word
    from lexora_contract.plain import plain as plain_data

    try:
        with router.client() as client:
            found = client.principal()
    except RouterFailure as failure:
        fail(str(failure))
    if as_json:
        print_json(plain_data(found))
        raise typer.Exit
    if not found.tenant:
        plain(f"anybody: the router at {router.address} asks for no credentials")
        raise typer.Exit
    plain(f"key         {found.key}" + (f" ({found.name})" if found.name else ""))
    plain(f"tenant      {found.tenant}")
    plain(f"scopes      {', '.join(word(Scope, scope) for scope in found.scopes)}")
    plain(f"models      {', '.join(found.models) or 'all'}")
    plain(f"operations  {', '.join(found.operations) or 'all'}")
