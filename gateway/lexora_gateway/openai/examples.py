"""Example bodies for the OpenAPI document."""

from __future__ import annotations

from typing import Any

_MESSAGES = [{"role": "user", "content": "Say hello."}]
_USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}

MODEL: dict[str, Any] = {
    "id": "qwen3-32b",
    "object": "model",
    "created": 1750000000,
    "owned_by": "vllm",
    "max_model_len": 32768,
    "backend": "main",
}
MODELS: dict[str, Any] = {"object": "list", "data": [MODEL]}
CAPABILITIES: dict[str, Any] = {
    "models": [
        {
            "id": "qwen3-32b",
            "backend": "main",
            "backend_type": "vllm",
            "capabilities": ["code", "general"],
            "description": "The everyday model.",
            "max_model_len": 32768,
            "status": "healthy",
        }
    ],
    "available_capabilities": ["code", "general"],
    "default_model_for_unknown_task": "qwen3-32b",
}
HEALTH: dict[str, Any] = {"status": "healthy", "backends": {"main": "healthy"}, "version": "0.1.0", "auth": "off"}
_COUNTS = {
    "total": 120,
    "successful": 118,
    "failed": 1,
    "cancelled": 1,
    "tokens_input": 2400,
    "tokens_output": 9600,
    "tokens_cached": 800,
}
_LATENCIES = {
    "ttft": {"count": 80, "mean": 0.061, "p50": 0.051, "p90": 0.098, "p99": 0.2},
    "itl": {"count": 9400, "mean": 0.0211, "p50": 0.02, "p90": 0.027, "p99": 0.049},
    "queue": {"count": 120, "mean": 0.0003, "p50": 0.0002, "p90": 0.0004, "p99": 0.0031},
    "total": {"count": 120, "mean": 1.92, "p50": 1.8, "p90": 3.3, "p99": 4.4},
}
STATS: dict[str, Any] = {
    "total_requests": 120,
    "successful_requests": 118,
    "failed_requests": 1,
    "cancelled_requests": 1,
    "success_rate": 0.9916,
    "total_tokens_input": 2400,
    "total_tokens_output": 9600,
    "average_duration_seconds": 1.92,
    "requests_per_endpoint": {"/v1/chat/completions": 120},
    "requests_per_model": {"qwen3-32b": 120},
    "requests_per_backend": {"vllm": 120},
    "errors_by_type": {"QUEUE_FULL": 1},
    "active_requests": 2,
    "in_flight": {"http://localhost:8000": 2},
    "uptime_seconds": 3600.5,
    "total_retries": 1,
    "total_fallbacks": 0,
    "total_resumed": 0,
    "rejected_by_reason": {"queue_full": 1},
    "queue_depth": {"vllm": 0},
    "discovery": {},
    "limits": {"http://localhost:8000": 64},
    "breakers": {"http://localhost:8000": "closed"},
    "total_tokens_cached": 800,
    "tokens_wasted": {"client_left": 42},
    "by_model": {"qwen3-32b": _COUNTS},
    "by_backend": {"vllm": _COUNTS},
    "by_endpoint": {"vllm/http://localhost:8000": _COUNTS},
    "by_tenant": {"anonymous": _COUNTS},
    "by_path": {"/v1/chat/completions": _COUNTS},
    "state": {"shared": True, "reason": "", "replicas": 3},
    "last_reload": {
        "result": "applied",
        "trigger": "file",
        "finished_unix": 1795388260,
        "problems": [],
        "warnings": [],
        "changed_keys": ["retry.max_retries"],
        "keys_needing_restart": [],
        "good_reloads": 1,
        "bad_reloads": 0,
    },
    "last_minute": _LATENCIES,
    "last_five_minutes": _LATENCIES,
    "since_start": _LATENCIES,
    "history": [
        {
            "start_unix": 1795388260,
            "seconds": 7.5,
            "total": 120,
            "failed": 1,
            "tokens_input": 2400,
            "tokens_output": 9600,
            "latencies": _LATENCIES,
        }
    ],
}
RECENT: dict[str, Any] = {
    "calls": [
        {
            "request_id": "6aa7a2d692d3e89903379a681d1f2bf5",
            "finished_unix_ms": 1795388260120,
            "path": "/v1/chat/completions",
            "model": "qwen3-32b",
            "backend": "vllm",
            "endpoint": "http://localhost:8000",
            "status": 200,
            "error": "",
            "stream": True,
            "queue_seconds": 0.0002,
            "ttft_seconds": 0.051,
            "total_seconds": 1.8,
            "tokens_input": 20,
            "tokens_output": 80,
            "attempts": 1,
            "fallback": "",
            "resumed": "",
            "labels": {"team": "search"},
            "session_key": "",
            "tenant": "",
            "key": "",
        }
    ]
}
ERROR: dict[str, Any] = {
    "error": {
        "message": "The model `nope` does not exist.",
        "type": "not_found_error",
        "param": "model",
        "code": "model_not_found",
    }
}

_RERANK = {"model": "bge-reranker", "query": "What is vLLM?", "documents": ["An engine.", "A fruit."]}
_RERANKED = {"id": "rerank-1", "model": "bge-reranker", "results": [{"index": 0, "relevance_score": 0.98}]}
_SCORE = {"model": "bge-reranker", "text_1": "What is vLLM?", "text_2": ["An engine.", "A fruit."]}
_SCORED = {"object": "list", "model": "bge-reranker", "data": [{"index": 0, "object": "score", "score": 0.98}]}

# Method and path -> summary.
STORED_SUMMARIES: dict[tuple[str, str], str] = {
    ("GET", "/v1/responses/{response_id}"): "A stored response; `stream=true` gives its events",
    ("DELETE", "/v1/responses/{response_id}"): "Delete a stored response",
    ("POST", "/v1/responses/{response_id}/cancel"): "Cancel a response that is made in the background",
    ("GET", "/v1/responses/{response_id}/input_items"): "What a stored response was made from",
}

# path -> summary, tag, request, response.
POST: dict[str, tuple[str, str, Any, Any]] = {
    "/v1/chat/completions": (
        "Answer a conversation; `stream: true` gives events",
        "generation",
        {"model": "qwen3-32b", "messages": _MESSAGES, "max_tokens": 100},
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1750000000,
            "model": "qwen3-32b",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"},
            ],
            "usage": _USAGE,
        },
    ),
    "/v1/completions": (
        "Continue a text; `stream: true` gives events",
        "generation",
        {"model": "qwen3-32b", "prompt": "Once upon a time", "max_tokens": 100},
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1750000000,
            "model": "qwen3-32b",
            "choices": [{"index": 0, "text": " there was", "finish_reason": "length"}],
            "usage": _USAGE,
        },
    ),
    "/v1/embeddings": (
        "Vectors for texts or token ids",
        "pooling",
        {"model": "bge-m3", "input": ["first text", "second text"]},
        {
            "object": "list",
            "model": "bge-m3",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
            "usage": {"prompt_tokens": 4, "total_tokens": 4},
        },
    ),
    "/v1/responses": (
        "OpenAI's Responses API",
        "generation",
        {"model": "qwen3-32b", "input": "Say hello."},
        {"id": "resp_1", "object": "response", "status": "completed", "output": []},
    ),
    "/v1/messages": (
        "Anthropic's Messages API",
        "generation",
        {"model": "qwen3-32b", "messages": _MESSAGES, "max_tokens": 100},
        {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hello."}]},
    ),
    "/v1/messages/count_tokens": (
        "How many tokens an Anthropic message would be",
        "tokens",
        {"model": "qwen3-32b", "messages": _MESSAGES},
        {"input_tokens": 12},
    ),
    "/v1/chat/completions/render": (
        "What the engine would be given for a conversation",
        "tokens",
        {"model": "qwen3-32b", "messages": _MESSAGES},
        {"request_id": "chatcmpl-1", "model": "qwen3-32b", "token_ids": [9707, 13], "sampling_params": {}},
    ),
    "/v1/completions/render": (
        "What the engine would be given for a prompt",
        "tokens",
        {"model": "qwen3-32b", "prompt": "Once upon a time"},
        [{"request_id": "cmpl-1", "model": "qwen3-32b", "token_ids": [9707, 13], "sampling_params": {}}],
    ),
    "/v2/embed": (
        "Vectors for texts, Cohere's API",
        "pooling",
        {"model": "bge-m3", "texts": ["first text"], "input_type": "search_query", "embedding_types": ["float"]},
        {"id": "embd-1", "embeddings": {"float": [[0.1, 0.2]]}, "texts": ["first text"]},
    ),
    "/v2/rerank": ("Order documents by relevance", "pooling", _RERANK, _RERANKED),
    "/v1/rerank": ("Order documents by relevance", "pooling", _RERANK, _RERANKED),
    "/rerank": ("Order documents by relevance", "pooling", _RERANK, _RERANKED),
    "/v1/score": ("Score pairs of texts", "pooling", _SCORE, _SCORED),
    "/score": ("Score pairs of texts", "pooling", _SCORE, _SCORED),
    "/pooling": (
        "Raw output of a pooling model",
        "pooling",
        {"model": "bge-m3", "input": "a text"},
        {"object": "list", "model": "bge-m3", "data": [{"index": 0, "object": "pooling", "data": [0.1]}]},
    ),
    "/classify": (
        "Label texts with a classification model",
        "pooling",
        {"model": "sentiment", "input": ["I like it."]},
        {"object": "list", "model": "sentiment", "data": [{"index": 0, "label": "positive", "probs": [0.1, 0.9]}]},
    ),
    "/tokenize": (
        "Token ids of a text",
        "tokens",
        {"model": "qwen3-32b", "prompt": "Hello."},
        {"count": 2, "max_model_len": 32768, "tokens": [9707, 13]},
    ),
    "/detokenize": (
        "Text of token ids",
        "tokens",
        {"model": "qwen3-32b", "tokens": [9707, 13]},
        {"prompt": "Hello."},
    ),
    "/v1/audio/transcriptions": ("Text of speech", "audio", {"model": "whisper", "file": "@a.wav"}, {"text": "Hello."}),
    "/v1/audio/translations": (
        "English text of speech",
        "audio",
        {"model": "whisper", "file": "@a.wav"},
        {"text": "Hello."},
    ),
    "/v1/classify-task": (
        "Which model fits a task",
        "models",
        {"task_description": "Write a parser.", "candidate_models": []},
        {
            "recommended_model": "qwen3-32b",
            "task_type": "code",
            "confidence": 0.9,
            "reasoning": "It asks for code.",
            "classifier": "llm",
            "alternatives": [{"model": "mistral-7b", "score": 0.4}],
        },
    ),
    "/generate": (
        "Continue a prompt, the short form",
        "short forms",
        {"prompt": "Once upon a time", "max_tokens": 1000, "temperature": 0.7},
        {"text": " there was a gateway."},
    ),
    "/chat": (
        "Answer a conversation, the short form",
        "short forms",
        {"messages": _MESSAGES, "max_tokens": 1000, "temperature": 0.7},
        {"response": "Hello."},
    ),
}
