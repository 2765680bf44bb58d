"""The text of /metrics: vLLM's names and labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

from lexora_sim.engine.metrics import ModelMetrics

if TYPE_CHECKING:
    from lexora_sim.engine.scheduler import Scheduler

_GAUGES = (
    ("num_requests_running", "Number of requests in model execution batches.", "running"),
    ("num_requests_waiting", "Number of requests waiting to be processed.", "waiting"),
)
_COUNTERS = (
    ("prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.", "prefix_queries"),
    ("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", "prefix_hits"),
    ("num_preemptions", "Cumulative number of preemption from the engine.", "preemptions"),
    ("prompt_tokens", "Number of prefill tokens processed.", "prompt_tokens"),
    ("generation_tokens", "Number of generation tokens processed.", "generation_tokens"),
)
_HISTOGRAMS = (
    ("request_prompt_tokens", "Number of prefill tokens processed.", "prompt_size"),
    ("request_generation_tokens", "Number of generation tokens processed.", "generation_size"),
    ("request_params_n", "Histogram of the n request parameter.", "params_n"),
    ("request_params_max_tokens", "Histogram of the max_tokens request parameter.", "max_tokens"),
    ("time_to_first_token_seconds", "Histogram of time to first token in seconds.", "ttft"),
    ("inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", "itl"),
    ("e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", "e2e"),
    ("request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", "queue"),
    ("request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", "inference"),
    ("request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", "prefill"),
    ("request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", "decode"),
)
_REASON_HELP = (
    "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; 'deferred' = "
    "deferred by transient constraints. Sum of all reasons equals vllm:num_requests_waiting."
)


def render(scheduler: Scheduler) -> bytes:
    """Return the exposition text of all models of one scheduler."""
    models = scheduler.metrics
    lines: list[str] = []

    def family(name: str, kind: str, help_text: str, samples: Iterable[tuple[str, float]]) -> None:
        lines.append(f"# HELP vllm:{name} {help_text}")
        lines.append(f"# TYPE vllm:{name} {kind}")
        lines.extend(f"vllm:{series} {value!r}" for series, value in samples)

    for name, text, attribute in _GAUGES:
        family(name, "gauge", text, _plain(name, models, attribute))
    family("num_requests_waiting_by_reason", "gauge", _REASON_HELP, _by_reason(models))
    family("engine_sleep_state", "gauge", "Engine sleep state; awake = 0 means engine is sleeping.", _sleep(models))
    usage = scheduler.kv_used / scheduler.kv_capacity
    kv_name = "kv_cache_usage_perc"
    kv_samples = [(_series(kv_name, model), usage) for model in models]
    family(kv_name, "gauge", "KV-cache usage. 1 means 100 percent usage.", kv_samples)
    for name, text, attribute in _COUNTERS:
        family(f"{name}_total", "counter", text, _plain(f"{name}_total", models, attribute))
    family("request_success_total", "counter", "Count of successfully processed requests.", _finished(models))
    rejected = "Number of admission attempts rejected by a queue limit, by reason."
    family("admission_rejections_total", "counter", rejected, _rejections(models))
    for name, text, attribute in _HISTOGRAMS:
        family(name, "histogram", text, _histogram(name, models, attribute))
    family("cache_config_info", "gauge", "Information of the LLMEngine CacheConfig", _cache_info(scheduler))
    return ("\n".join(lines) + "\n").encode()


def _series(name: str, model: str, before: str = "", after: str = "") -> str:
    return f'{name}{{engine="0",{before}model_name="{_escape(model)}"{after}}}'


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _plain(name: str, models: dict[str, ModelMetrics], attribute: str) -> list[tuple[str, float]]:
    read = attrgetter(attribute)
    return [(_series(name, model), float(read(metrics))) for model, metrics in models.items()]


def _by_reason(models: dict[str, ModelMetrics]) -> Iterator[tuple[str, float]]:
    for model, metrics in models.items():
        name = "num_requests_waiting_by_reason"
        yield _series(name, model, after=',reason="capacity"'), float(metrics.waiting)
        yield _series(name, model, after=',reason="deferred"'), 0.0


def _sleep(models: dict[str, ModelMetrics]) -> Iterator[tuple[str, float]]:
    for model in models:
        for state, value in (("awake", 1.0), ("weights_offloaded", 0.0), ("discard_all", 0.0)):
            yield _series("engine_sleep_state", model, after=f',sleep_state="{state}"'), value


def _finished(models: dict[str, ModelMetrics]) -> Iterator[tuple[str, float]]:
    for model, metrics in models.items():
        for reason, count in metrics.finished.items():
            yield _series("request_success_total", model, before=f'finished_reason="{reason}",'), float(count)


def _rejections(models: dict[str, ModelMetrics]) -> Iterator[tuple[str, float]]:
    for model, metrics in models.items():
        for reason, count in (("max_num_queued_reqs", metrics.rejections), ("max_num_queued_tokens", 0)):
            yield f'admission_rejections_total{{model_name="{_escape(model)}",reason="{reason}"}}', float(count)


def _histogram(name: str, models: dict[str, ModelMetrics], attribute: str) -> Iterator[tuple[str, float]]:
    read = attrgetter(attribute)
    for model, metrics in models.items():
        histogram = read(metrics)
        for bound, count in histogram.buckets():
            yield _series(f"{name}_bucket", model, before=f'le="{bound}",'), float(count)
        yield _series(f"{name}_count", model), float(histogram.count)
        yield _series(f"{name}_sum", model), histogram.total


def _cache_info(scheduler: Scheduler) -> Iterator[tuple[str, float]]:
    blocks = scheduler.kv_capacity // 16
    yield (
        f'cache_config_info{{block_size="16",enable_prefix_caching="{scheduler.prefix_caching}",engine="0",'
        f'kv_cache_size_tokens="{scheduler.kv_capacity}",num_gpu_blocks="{blocks}"}}',
        1.0,
    )
