"""Every knob of the simulator, with its default and unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SimSettings:
    """What the simulated server serves and how fast.

    Times are milliseconds, rates are tokens per second, sizes are bytes or tokens as named.
    Raises ValueError when a value makes no sense.
    """

    host: str = "127.0.0.1"
    port: int = 8000  # 0 picks a free one
    models: tuple[str, ...] = ("sim-model",)  # generating models; the first is the default
    embedding_models: tuple[str, ...] = ()  # pooling models: embeddings, rerank, score, classify
    api_key: str | None = None  # when set, /v1/* wants "Authorization: Bearer KEY"
    version: str = "0.32.0"
    max_model_len: int = 32_768  # tokens, prompt and answer together
    request_id_headers: bool = True  # answer with x-request-id (taken or made)
    prompt_tokens_details: bool = False  # report cached_tokens in usage

    default_tokens: int = 64  # chat answers without max_tokens
    natural_length: int = 256  # an answer ends by itself after this many tokens, or up to a quarter more
    reasoning_tokens: int = 0  # the first N tokens of a chat answer come as `reasoning`
    embedding_dimensions: int = 64
    max_embedding_dimensions: int = 4096

    ttft_ms: float = 5.0  # from admission to the first token, prefill not included
    itl_ms: float = 2.0  # between tokens; 0 = back to back
    prefill_rate: float = 0.0  # prompt tokens per second; 0 = prefill costs nothing
    prefill_slowdown: float = 0.0  # the first token's time grows by this fraction for every other running sequence
    decode_slowdown: float = 0.0  # itl grows by this fraction for every other running sequence
    coalesce: int = 1  # tokens per step (and so per event)

    max_num_seqs: int = 256  # sequences running at once; the rest wait
    max_queued: int | None = None  # waiting requests beyond this get 503; None = no limit
    priority_scheduling: bool = False  # wait by `priority` (lower first) instead of first come first served
    kv_capacity_tokens: int = 1_048_576
    prefix_cache: bool = True

    keep_alive: bool = True  # serve further requests on a connection
    max_body_bytes: int = 64 * 1024 * 1024
    keep_requests: int = 10_000  # how many requests /sim/requests remembers
    keep_body_bytes: int = 1024 * 1024  # of each remembered body
    keep_total_bytes: int = 128 * 1024 * 1024  # of all remembered bodies
    seed: int = 0  # for faults with a probability
    shutdown_grace_ms: float = 3_000.0  # how long a stopping server waits for its connections

    def __post_init__(self) -> None:
        if not self.models and not self.embedding_models:
            raise ValueError("at least one model is needed")
        for name in ("max_model_len", "default_tokens", "natural_length", "max_num_seqs", "coalesce", "keep_requests"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        times = ("ttft_ms", "itl_ms", "shutdown_grace_ms")
        for name in (*times, "prefill_rate", "prefill_slowdown", "decode_slowdown", "reasoning_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.kv_capacity_tokens < self.max_model_len:
            raise ValueError("kv_capacity_tokens must hold at least one sequence of max_model_len")
