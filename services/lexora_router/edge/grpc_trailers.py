"""Trailing metadata of a call at the gRPC wire: the receipt for those that read no messages, and hints of a failed call."""

from collections.abc import Iterator

from lexora.v1 import receipt_pb2
from lexora_contract.answer import hops_text
from lexora_contract.enums import word
from lexora_contract.messages import receipt_message
from lexora_contract.plain import hops_of, resumed_name
from lexora_contract.port import CallFailed
from lexora_contract.words import auto_text, duration
from lexora_router.edge.grpc_context import GrpcContext

# Of an engine's own error, what fits into the metadata that a gRPC client accepts by default (8 KiB), beside the rest; a
# client that accepts more says so.
DEFAULT_ERROR_BYTES = 3072
MAX_ERROR_BYTES = 1024 * 1024
ERROR_BYTES = "x-lexora-error-bytes"


def trailing(receipt: receipt_pb2.Receipt) -> tuple[tuple[str, str], ...]:
    """What the receipt says, as the headers of HTTP answers have it."""
    pairs = (
        ("x-request-id", receipt.request_id),
        ("x-lexora-backend", receipt.backend),
        ("x-lexora-attempts", str(receipt.attempts)),
    )
    auto = _auto(receipt.auto) if receipt.HasField("auto") else ""
    fallback, resumed = hops_text(hops_of(receipt.hops)), resumed_name(receipt.resume_method)
    unusual = (("x-lexora-fallback", fallback), ("x-lexora-resumed", resumed), ("x-lexora-model", auto))
    return (*pairs, *(pair for pair in unusual if pair[1]), *_limits(receipt.rate_limit))


def _limits(state: receipt_pb2.RateLimitState) -> Iterator[tuple[str, str]]:
    """Where the client stands, in the words of OpenAI's headers."""
    for kind, bucket in (("requests", state.requests), ("tokens", state.tokens)):
        if bucket.limit:
            yield f"x-ratelimit-limit-{kind}", str(bucket.limit)
            yield f"x-ratelimit-remaining-{kind}", str(bucket.remaining)
            yield f"x-ratelimit-reset-{kind}", duration(bucket.reset.seconds + bucket.reset.nanos / 1e9)


def _auto(auto: receipt_pb2.AutoChoice) -> str:
    """The model that was chosen for `auto`, as the HTTP header of the same name has it: percent-encoded where need be."""
    return auto_text(auto.model, auto.task_type, auto.confidence, word(receipt_pb2.Classifier, auto.classifier))


def hints(end: CallFailed) -> tuple[tuple[str, str], ...]:
    """Trailing metadata of a failed call: what stock clients read, and the receipt."""
    pushback = () if end.retry_after is None else (("grpc-retry-pushback-ms", str(round(end.retry_after * 1e9) // 1_000_000)),)
    return (*pushback, *(() if end.receipt is None else trailing(receipt_message(end.receipt))))


def error_bytes(context: GrpcContext) -> int:
    """How much of an upstream's error the caller can take; our own facade says, stock clients get the safe default."""
    for name, value in context.invocation_metadata() or ():
        if name == ERROR_BYTES and isinstance(value, str) and value.isdigit():
            return min(int(value), MAX_ERROR_BYTES)
    return DEFAULT_ERROR_BYTES
