"""GET /v1/models and its kin: the routable models in OpenAI's shapes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lexora.v1.health_pb2 import BackendStatus
from lexora.v1.models_pb2 import BackendType, ListModelsRequest
from lexora_contract.enums import word
from lexora_contract.rpcs import LIST_MODELS

if TYPE_CHECKING:
    from lexora.v1.models_pb2 import ListModelsResponse, Model
    from lexora_contract.port import CallContext, RouterPort


async def all_models(router: RouterPort, context: CallContext) -> ListModelsResponse:
    """All pages of the list in one."""
    listed = await router.unary(LIST_MODELS, ListModelsRequest(), context)
    while listed.next_page_token:
        page = await router.unary(LIST_MODELS, ListModelsRequest(page_token=listed.next_page_token), context)
        listed.models.extend(page.models)
        listed.next_page_token = page.next_page_token
    return listed


def models_list(response: ListModelsResponse) -> dict[str, Any]:
    """`{"object": "list", "data": [...]}`."""
    return {"object": "list", "data": [model_entry(model) for model in response.models]}


def find_model(response: ListModelsResponse, model_id: str) -> dict[str, Any] | None:
    """The entry of one model; None when it is not listed."""
    return next((model_entry(model) for model in response.models if model.id == model_id), None)


def model_entry(model: Model) -> dict[str, Any]:
    """The backend's own entry with `backend` added, or one made up for a model that the backend does not list."""
    entry = _own_entry(model.upstream_json)
    if entry is None:
        entry = {"id": model.id, "object": "model", "created": 0, "owned_by": model.backend}
    entry["id"] = model.id
    if model.max_model_len > 0 and entry.get("max_model_len") is None:
        entry["max_model_len"] = model.max_model_len
    entry["backend"] = model.backend
    return entry


def capabilities(response: ListModelsResponse) -> dict[str, Any]:
    """What each model is good at, as configured."""
    return {
        "models": [
            {
                "id": model.id,
                "backend": model.backend,
                "backend_type": word(BackendType, model.backend_type),
                "capabilities": list(model.capabilities),
                "description": model.description,
                "max_model_len": model.max_model_len or None,
                "status": word(BackendStatus, model.status),
            }
            for model in response.models
        ],
        "available_capabilities": list(response.available_capabilities),
        "default_model_for_unknown_task": response.default_model_for_unknown_task or None,
    }


def _own_entry(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
