"""The router's facts under the names of OpenTelemetry's conventions for generative AI.

https://github.com/open-telemetry/semantic-conventions-genai (docs/gen-ai: spans and metrics; in development, as of 2026)
"""

from lexora_contract.answer import hops_text
from lexora_contract.operations import operation_of
from lexora_router.call import Call
from lexora_router.telemetry.account import reason, rejection

Value = str | bool | int | float | tuple[str, ...]

MAX_MODEL_CHARS = 256
MAX_CALLER_CHARS = 128


def operation(path: str) -> str:
    """What is asked of the model; empty for a call that was refused before that was known."""
    return operation_of(path).name


def error_type(error: BaseException) -> str:
    """error.type: the reason that logs, statistics and gRPC give, and a word for a client that left."""
    return reason(error) or "CANCELLED"


def asked(call: Call) -> dict[str, Value]:
    """Attributes of what the client asked."""
    found: dict[str, Value] = {"lexora.request_id": call.id}
    if call.principal.account:
        found["lexora.tenant"] = call.principal.account[:MAX_CALLER_CHARS]
        found["lexora.key"] = call.principal.key[:MAX_CALLER_CHARS]
    if call.path:
        found["gen_ai.operation.name"] = operation(call.path)
        found["url.path"] = call.path
    if call.model:
        found["gen_ai.request.model"] = call.model[:MAX_MODEL_CHARS]
    if call.stream:
        found["gen_ai.request.stream"] = True
    if call.max_tokens is not None and abs(call.max_tokens) < 2**63:
        found["gen_ai.request.max_tokens"] = call.max_tokens
    if call.choices != 1 and call.choices < 2**63:
        found["gen_ai.request.choice.count"] = call.choices
    if call.priority is not None:
        found["lexora.priority"] = call.priority
    if call.session_key:
        found["gen_ai.conversation.id"] = call.session_key
    for key, value in call.labels:
        found[f"lexora.label.{key}"] = value
    return found


def answered(call: Call, status: int, error: BaseException | None) -> dict[str, Value]:
    """Attributes of a call's outcome."""
    receipt = call.receipt
    found: dict[str, Value] = {"http.response.status_code": status}
    if receipt.backend:
        found["lexora.backend"] = receipt.backend
    if receipt.attempts:
        found["lexora.attempts"] = receipt.attempts
        found["gen_ai.response.model"] = receipt.model[:MAX_MODEL_CHARS]
    if receipt.finish_reasons:
        found["gen_ai.response.finish_reasons"] = receipt.finish_reasons
    if call.stream and receipt.first_event_at:
        found["gen_ai.response.time_to_first_chunk"] = receipt.first_event_at - call.started
    if receipt.usage is not None:
        found |= _used(call)
    if receipt.hops:
        found["lexora.fallback"] = hops_text(receipt.hops)
    if receipt.resumed:
        found["lexora.resumed"] = receipt.resumed
    if error is not None:
        found["error.type"] = error_type(error)
        if refused := rejection(error):
            found["lexora.rejected"] = refused
    return found


def _used(call: Call) -> dict[str, Value]:
    usage = call.receipt.usage
    assert usage is not None
    found: dict[str, Value] = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
    }
    if usage.cached_tokens:
        found["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if usage.reasoning_tokens:
        found["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    return found
