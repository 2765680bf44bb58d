"""Which endpoint answers which path and method."""

from lexora_sim.api import admin, audio, chat, completions, info, messages, pooling, render, responses, stored, tokenizer
from lexora_sim.api.app import Methods, Routes, Serve
from lexora_sim.settings import SimSettings

_COMMON: dict[str, Methods] = {
    "/health": {"GET": info.serve_health},
    "/ping": {"GET": info.serve_health, "POST": info.serve_health},
    "/version": {"GET": info.serve_version},
    "/load": {"GET": info.serve_load},
    "/metrics": {"GET": info.serve_metrics},
    "/v1/models": {"GET": info.serve_models},
    "/tokenize": {"POST": tokenizer.serve_tokenize},
    "/detokenize": {"POST": tokenizer.serve_detokenize},
    "/sim/stats": {"GET": admin.serve_stats},
    "/sim/requests": {"GET": admin.serve_requests},
    "/sim/reset": {"POST": admin.serve_reset},
    "/sim/faults": {
        "GET": admin.serve_list_faults,
        "POST": admin.serve_add_fault,
        "DELETE": admin.serve_clear_faults,
    },
}
_GENERATING: dict[str, Serve] = {
    "/v1/chat/completions": chat.serve_chat,
    "/v1/completions": completions.serve_completion,
    "/v1/responses": responses.serve_responses,
    "/v1/messages": messages.serve_messages,
    "/v1/messages/count_tokens": messages.serve_count_tokens,
    "/v1/chat/completions/render": render.serve_chat,
    "/v1/completions/render": render.serve_completion,
    "/v1/audio/transcriptions": audio.serve_audio,
    "/v1/audio/translations": audio.serve_audio,
}
_POOLING: dict[str, Serve] = {
    "/v1/embeddings": pooling.serve_embeddings,
    "/pooling": pooling.serve_pooling,
    "/classify": pooling.serve_classify,
    "/v1/score": pooling.serve_score,
    "/score": pooling.serve_score,
    "/v1/rerank": pooling.serve_rerank,
    "/v2/rerank": pooling.serve_rerank,
    "/v2/embed": pooling.serve_cohere_embed,
    "/rerank": pooling.serve_rerank,
}


def routes_of(settings: SimSettings) -> Routes:
    """The routes of a server: generating ones only with models for them, pooling ones only with embedding models."""
    routes = dict(_COMMON)
    if settings.models:
        routes |= {path: {"POST": serve} for path, serve in _GENERATING.items()}
    if settings.embedding_models:
        routes |= {path: {"POST": serve} for path, serve in _POOLING.items()}

    def find(path: str) -> Methods | None:
        return routes.get(path) or (stored.methods_of(path) if path.startswith("/v1/responses/") else None)

    return find
