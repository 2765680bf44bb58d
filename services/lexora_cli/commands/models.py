"""`lexora models`."""

from typing import TYPE_CHECKING

from lexora_cli.options import AsJson
from lexora_cli.reach import DEFAULT, Reach, asks_router
from lexora_cli.screen import fail, plain, print_json, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

    from lexora.v1.models_pb2 import ListModelsResponse


@asks_router
def models(router: Reach = DEFAULT, as_json: AsJson = False) -> None:
    """List the models that can be asked, each with its backend.

    \b
    Examples:
      lexora models
      lexora models --router 10.0.0.5:50051 --json
    """

    from lexora_cli.client import RouterFailure
    from lexora_contract.plain import plain as plain_data

    try:
        with router.client() as client:
            listed = client.models()
    except RouterFailure as failure:
        fail(str(failure))
    if as_json:
        print_json(plain_data(listed))
    elif not listed.models:
        plain("No models: none is configured, and no backend has listed any.")
    else:
        show(_lines(listed))


def _lines(listed: "ListModelsResponse") -> "list[Text]":
    from lexora_cli.columns import columns

    return columns(("model", "backend", "type", "status", "context", "capabilities"), _rows(listed))


def _rows(listed: "ListModelsResponse") -> "Iterator[tuple[str | Text, ...]]":
    from lexora.v1.health_pb2 import BackendStatus
    from lexora.v1.models_pb2 import BackendType
    from lexora_cli.status_text import coloured
    from lexora_contract.enums import word

    for model in listed.models:
        name = f"{model.id} -> {model.alias_of}" if model.alias_of else model.id
        status = coloured(BackendStatus, model.status)
        context = f"{model.max_model_len:,}" if model.max_model_len else "-"
        yield (name, model.backend, word(BackendType, model.backend_type), status, context, ", ".join(model.capabilities))
