"""How a command reaches its router: the options, and the environment, that all commands of this kind have."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lexora_cli.options import DEFAULT_ROUTER, Router

if TYPE_CHECKING:
    import grpc

    from lexora_cli.client import RouterClient

Tls = Annotated[
    bool, typer.Option("--tls", envvar="LEXORA_TLS", help="Speak TLS; --ca and --cert say so, too.", show_envvar=True)
]
Ca = Annotated[
    str | None,
    typer.Option("--ca", envvar="LEXORA_CA", metavar="FILE", help="PEM: trust these authorities.", show_default=False),
]
Cert = Annotated[
    str | None,
    typer.Option("--cert", envvar="LEXORA_CERT", metavar="FILE", help="PEM: the certificate to show.", show_default=False),
]
Key = Annotated[
    str | None,
    typer.Option("--key", envvar="LEXORA_KEY", metavar="FILE", help="PEM: its key; else in --cert.", show_default=False),
]

AtRouter = Annotated[
    str | None,
    typer.Option(
        "--router",
        "-r",
        metavar="HOST:PORT",
        help="Ask a running router instead, by gRPC; $LEXORA_API_KEY must be a key with the scope admin.",
    ),
]


@dataclass(frozen=True, slots=True)
class Reach:
    """A router's address, and what the way there is secured with."""

    address: str
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that is named."""
        return tuple(dict.fromkeys(file for file in (self.ca, self.cert, self.key) if file is not None))

    def read(self) -> "grpc.ChannelCredentials":
        """TLS with the files as they are now. Raises ValueError, which names the one that cannot be read."""
        from lexora.client import tls_credentials  # noqa: PLC0415 - start-up time

        return tls_credentials(self.ca, self.cert, self.key)

    def credentials(self) -> "grpc.ChannelCredentials | None":
        """For a gRPC channel; None: in the clear. Ends the command when a file cannot be used."""
        if not (self.tls or self.files):
            return None
        try:
            return self.read()
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    def client(self) -> "RouterClient":
        """A client with the key in LEXORA_API_KEY, if there is one."""
        from lexora_cli.client import RouterClient  # noqa: PLC0415 - start-up time

        try:
            return RouterClient(self.address, self.credentials())
        except ValueError as error:
            raise typer.BadParameter(f"LEXORA_API_KEY: {error}") from None


DEFAULT = Reach(DEFAULT_ROUTER)


def asks_router(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command with a parameter `router: Reach` the options --router, --tls, --ca, --cert and --key in its place.

    A default of None is for a command that may do without a router.
    """
    given = inspect.signature(command)
    default = given.parameters["router"].default
    named: dict[str, tuple[Any, Any]] = {
        "router": (AtRouter, None) if default is None else (Router, default.address if isinstance(default, Reach) else default),
        "tls": (Tls, False),
        "ca": (Ca, None),
        "cert": (Cert, None),
        "key": (Key, None),
    }
    parameters = [parameter for name, parameter in given.parameters.items() if name != "router"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter(name, keyword, annotation=kind, default=value) for name, (kind, value) in named.items()]

    @wraps(command)
    def run(*args: Any, router: str | None, tls: bool, ca: str | None, cert: str | None, key: str | None, **rest: Any) -> None:
        command(*args, router=None if router is None else Reach(router, tls, ca, cert, key), **rest)

    own = [parameter.replace(kind=keyword) for parameter in parameters]
    run.__signature__ = given.replace(parameters=[*own, *options])  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {each.name: each.annotation for each in (*own, *options)} | {"return": None}
    return run
