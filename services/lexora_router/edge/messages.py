"""Receipts and answers of the domain as messages of the contract."""

from google.protobuf.duration_pb2 import Duration

from lexora.v1 import raw_pb2, receipt_pb2
from lexora_contract.answer import BucketState, Choice, Head, Receipt, Reply
from lexora_router.edge.translate import usage_message
from lexora_router.policy.rate_limiter import Quota


def receipt_message(request_id: str, started: float, receipt: Receipt) -> receipt_pb2.Receipt:
    """The receipt as the contract has it: instants become durations since the call came in."""
    message = receipt_pb2.Receipt(
        request_id=request_id,
        backend=receipt.backend,
        endpoint=receipt.endpoint,
        model=receipt.model,
        attempts=receipt.attempts,
        usage=usage_message(receipt.usage),
        fallback=receipt.fallback,
        resumed=receipt.resumed,
        lost_tokens=receipt.lost_tokens,
    )
    if receipt.rate_limit is not None:
        fill_bucket(message.rate_limit.requests, receipt.rate_limit.requests)
        fill_bucket(message.rate_limit.tokens, receipt.rate_limit.tokens)
        fill_bucket(message.rate_limit.concurrent, receipt.rate_limit.concurrent)
    if receipt.auto is not None:
        message.auto.CopyFrom(auto_message(receipt.auto))
    for instant, duration in (
        (receipt.dispatched_at, message.queue_time),
        (receipt.first_event_at, message.time_to_first_token),
        (receipt.finished_at, message.total_time),
    ):
        if instant:
            _set_duration(duration, instant - started)
    return message


def auto_message(choice: Choice) -> receipt_pb2.AutoChoice:
    """How the model was chosen for a call that asked for `auto`."""
    return receipt_pb2.AutoChoice(
        model=choice.model, task_type=choice.task_type, confidence=choice.confidence, classifier=choice.by
    )


def fill_bucket(message: receipt_pb2.RateLimitBucket, state: BucketState | Quota | None) -> None:
    """Where a bucket stands; None, for what is not limited, leaves the message unset."""
    if state is not None:
        message.limit, message.remaining = state.limit, state.remaining
        _set_duration(message.reset, max(state.reset, 0.0))


def _set_duration(message: Duration, seconds: float) -> None:
    message.seconds, message.nanos = divmod(round(seconds * 1e9), 1_000_000_000)


def head_message(head: Head) -> raw_pb2.RawHead:
    """Status, content type and headers of an engine's answer."""
    return raw_pb2.RawHead(
        status=head.status,
        content_type=head.content_type,
        headers=[raw_pb2.Header(name=name, value=value) for name, value in head.headers],
    )


def reply_message(reply: Reply) -> raw_pb2.RawReply:
    """A whole answer, its body untouched."""
    return raw_pb2.RawReply(head=head_message(reply.head), body=reply.body)
