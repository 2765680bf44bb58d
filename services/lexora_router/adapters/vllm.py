"""vLLM's OpenAI-compatible server: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html."""

from lexora_contract.operations import operation_of
from lexora_contract.priority import NORMAL
from lexora_router.adapters.adapter import Adapter, LoadMetrics, Settings
from lexora_router.call import Call
from lexora_router.payload.rewrite import with_cache_salt, with_priority, without_priority


class Vllm(Adapter):
    """All that vLLM has beyond OpenAI's API."""

    provider = "vllm"
    default_health_path = "/health"
    default_max_concurrency = 64
    # https://docs.vllm.ai/en/latest/usage/metrics.html; the cache's name changed with the engine's second version.
    load_metrics = LoadMetrics(
        waiting=b"vllm:num_requests_waiting",
        running=b"vllm:num_requests_running",
        cache=(b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"),
    )
    schedules_by_priority = True
    sends_end_mark = True
    death = b"EngineCore encountered an issue"
    token_ids = True
    switches_thinking = True

    def __init__(self, settings: Settings, key: str | None) -> None:
        super().__init__(settings, key)
        self._by_priority = settings.scheduling_policy == "priority"

    def body(self, call: Call) -> tuple[bytes, bool]:
        """As of every engine, and apart from the prompts of other tenants in its prefix cache."""
        body, asks_usage = super().body(call)
        if call.cache_salt and body and operation_of(call.path).queued:
            body = with_cache_salt(body, call.cache_salt)
        return body, asks_usage

    def with_priority(self, call: Call, body: bytes) -> bytes:
        """A server that schedules by priority gets the call's own; one that does not would refuse any but 0."""
        if self._by_priority and call.priority is not None and operation_of(call.path).queued:
            return with_priority(body, to_vllm(call.priority))
        return without_priority(body) if call.own_priority else body


def to_vllm(priority: int) -> int:
    """A priority in vLLM's polarity, where lower is earlier and 0 is the default: `high` -50, `normal` 0, `low` 50."""
    return NORMAL - priority
