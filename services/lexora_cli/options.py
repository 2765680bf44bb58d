"""Options that several commands share."""

from typing import Annotated, Any

import typer

DEFAULT_ROUTER = "127.0.0.1:50051"

ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Configuration file. Else $LEXORA_CONFIG, [config/]lexora_config.yaml or /etc/lexora/config.yaml.",
    ),
]
Url = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="The engine to serve, such as http://gpu1:8000; again for a replica.", show_default=False),
]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="Model for calls that name none.")]
Host = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address to listen on, instead of the configured one.")]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, metavar="PORT", help="HTTP port, instead of server.port; 0 picks a free one."),
]
GrpcPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, metavar="PORT", help="gRPC port, instead of server.grpc_port; 0 picks a free one."),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, metavar="PORT", help="Metrics port, instead of server.metrics_port; 0 picks a free one."),
]


def _workers(text: str) -> int | str:
    if text != "auto" and not (text.isascii() and text.isdecimal() and int(text)):
        raise typer.BadParameter("it is a whole number from 1 up, or auto")
    return text if text == "auto" else int(text)


Workers = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER",
        parser=_workers,
        help="Processes that share the ports, instead of server.workers; auto: one per core.",
        show_default=False,
    ),
]


def engine_options(urls: list[str] | None, model: str | None) -> dict[str, Any]:
    """--url and --model by key path."""
    key, value = ("vllm.urls", urls) if urls and len(urls) > 1 else ("vllm.url", urls[0] if urls else None)
    return {key: value, "routing.default_model_for_unknown_task": model}


def _no_url(address: str) -> str:
    if address.startswith(("http://", "https://")):
        raise typer.BadParameter("it is HOST:PORT of gRPC, without http://, or unix:PATH")
    return address


Router = Annotated[
    str,
    typer.Option("--router", "-r", metavar="HOST:PORT", help="The router's gRPC address, or unix:PATH.", callback=_no_url),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
