"""Between the plain objects of a call and the messages of the contract.

Messages are filled where they stand: one that is put into another is copied by way of its bytes.
"""

from typing import Protocol

from lexora.v1 import call_pb2, errors_pb2, options_pb2, raw_pb2, receipt_pb2, tokens_pb2
from lexora_contract.answer import BucketState, Choice, Head, Hop, RateLimitState, Receipt, Reply, Usage
from lexora_contract.enums import value, word
from lexora_contract.plain import hops_of, resumed_name
from lexora_contract.port import Options, RawCall
from lexora_contract.times import seconds, set_duration


class Bucket(Protocol):
    """Where a token bucket stands: what fits, what is left, and seconds until it is full."""

    @property
    def limit(self) -> int: ...  # noqa: D102

    @property
    def remaining(self) -> int: ...  # noqa: D102

    @property
    def reset(self) -> float: ...  # noqa: D102


def receipt_of(message: receipt_pb2.Receipt, receipt: Receipt | None = None) -> Receipt:
    """The receipt of a message, or `receipt` filled with what the message says; instants count from the call's start."""
    receipt = Receipt() if receipt is None else receipt
    receipt.request_id = message.request_id
    receipt.backend, receipt.endpoint, receipt.model = message.backend, message.endpoint, message.model
    receipt.attempts, receipt.lost_tokens = message.attempts, message.lost_tokens
    receipt.hops, receipt.resumed = hops_of(message.hops), resumed_name(message.resume_method)
    if message.HasField("usage"):
        usage = message.usage
        receipt.usage = Usage(usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)
    if message.HasField("rate_limit"):
        state = message.rate_limit
        receipt.rate_limit = RateLimitState(
            _bucket(state.requests) if state.HasField("requests") else None,
            _bucket(state.tokens) if state.HasField("tokens") else None,
            _bucket(state.concurrent) if state.HasField("concurrent") else None,
        )
    if message.HasField("auto"):
        auto = message.auto
        receipt.auto = Choice(auto.model, auto.task_type, auto.confidence, word(receipt_pb2.Classifier, auto.classifier))
    receipt.dispatched_at = seconds(message.queue_time)
    receipt.first_event_at = seconds(message.time_to_first_token)
    receipt.finished_at = seconds(message.total_time)
    return receipt


def head_of(message: raw_pb2.RawHead) -> Head:
    """Status and headers of an engine's answer."""
    return Head(message.status or 200, message.content_type, tuple((each.name, each.value) for each in message.headers))


def reply_of(message: raw_pb2.RawReply) -> Reply:
    """A whole answer."""
    return Reply(head_of(message.head), message.body)


def options_of(message: options_pb2.CallOptions) -> Options:
    """How a call is to be treated. What is out of bounds is for `check_options` to say."""
    return Options(
        request_id=message.request_id,
        user=message.user,
        priority=message.priority if message.HasField("priority") else None,
        fallback_allowed=message.fallback != options_pb2.FALLBACK_POLICY_NEVER,
        resume_allowed=message.resume != options_pb2.RESUME_POLICY_NEVER,
        prompt_cache_key=message.prompt_cache_key,
        max_queue_time=seconds(message.max_queue_time) if message.HasField("max_queue_time") else None,
        labels=tuple(sorted(message.labels.items())) if message.labels else (),
        tenant=message.tenant,
        session_key=message.session_key,
        idempotency_key=message.idempotency_key,
    )


def options_message(options: Options) -> options_pb2.CallOptions:
    """The options as the contract has them."""
    message = options_pb2.CallOptions()
    fill_options(message, options)
    return message


def fill_options(message: options_pb2.CallOptions, options: Options) -> None:
    """Write options into an empty message."""
    message.request_id = options.request_id
    message.user = options.user
    message.prompt_cache_key = options.prompt_cache_key
    if options.priority is not None:
        message.priority = options.priority
    if not options.fallback_allowed:
        message.fallback = options_pb2.FALLBACK_POLICY_NEVER
    if not options.resume_allowed:
        message.resume = options_pb2.RESUME_POLICY_NEVER
    if options.max_queue_time is not None:
        set_duration(message.max_queue_time, options.max_queue_time)
    if options.session_key:
        message.session_key = options.session_key
    if options.idempotency_key:
        message.idempotency_key = options.idempotency_key
    if options.tenant:
        message.tenant = options.tenant
    if options.labels:
        message.labels.update(options.labels)


def raw_of(message: raw_pb2.RawCall) -> RawCall:
    """A call without its body, which stays where it is."""
    headers = tuple((header.name.lower(), header.value) for header in message.headers)
    method = message.method or "POST"
    return RawCall(message.path, message.content_type, method=method, query=message.query, headers=headers)


def fill_call(message: call_pb2.Call, call: RawCall) -> None:
    """Write a call without its body, which stays where it is, into an empty message."""
    fill_options(message.options, call.options)
    raw = message.raw
    raw.path = call.path
    raw.content_type = call.content_type
    raw.method = call.method
    raw.query = call.query
    for name, text in call.headers:
        raw.headers.add(name=name, value=text)


def _bucket(message: receipt_pb2.RateLimitBucket) -> BucketState:
    return BucketState(message.limit, message.remaining, seconds(message.reset))


def receipt_message(receipt: Receipt) -> receipt_pb2.Receipt:
    """The receipt as the contract has it."""
    message = receipt_pb2.Receipt()
    fill_receipt(message, receipt)
    return message


def fill_receipt(message: receipt_pb2.Receipt, receipt: Receipt) -> None:
    """Write a receipt into an empty message: instants become durations since the call came in."""
    message.request_id = receipt.request_id
    message.backend = receipt.backend
    message.endpoint = receipt.endpoint
    message.model = receipt.model
    message.attempts = receipt.attempts
    message.resume_method = value(receipt_pb2.ResumeMethod, receipt.resumed)
    message.lost_tokens = receipt.lost_tokens
    if receipt.usage is not None:
        fill_usage(message.usage, receipt.usage)
    if receipt.hops:
        message.hops.extend([hop_message(hop) for hop in receipt.hops])
    if receipt.rate_limit is not None:
        fill_bucket(message.rate_limit.requests, receipt.rate_limit.requests)
        fill_bucket(message.rate_limit.tokens, receipt.rate_limit.tokens)
        fill_bucket(message.rate_limit.concurrent, receipt.rate_limit.concurrent)
    if receipt.auto is not None:
        message.auto.CopyFrom(auto_message(receipt.auto))
    received = receipt.received_at
    if receipt.dispatched_at:
        set_duration(message.queue_time, receipt.dispatched_at - received)
    if receipt.first_event_at:
        set_duration(message.time_to_first_token, receipt.first_event_at - received)
    if receipt.finished_at:
        set_duration(message.total_time, receipt.finished_at - received)


def hop_message(hop: Hop) -> receipt_pb2.Hop:
    """One step to another backend."""
    return receipt_pb2.Hop(from_backend=hop.origin, to_backend=hop.to, reason=value(errors_pb2.ErrorReason, hop.reason))


def auto_message(choice: Choice) -> receipt_pb2.AutoChoice:
    """How the model was chosen for a call that asked for `auto`."""
    return receipt_pb2.AutoChoice(
        model=choice.model,
        task_type=choice.task_type,
        confidence=choice.confidence,
        classifier=value(receipt_pb2.Classifier, choice.by),
    )


def fill_bucket(message: receipt_pb2.RateLimitBucket, state: Bucket | None) -> None:
    """Where a bucket stands; None, for what is not limited, leaves the message unset."""
    if state is not None:
        message.limit, message.remaining = state.limit, state.remaining
        set_duration(message.reset, max(state.reset, 0.0))


def fill_head(message: raw_pb2.RawHead, head: Head) -> None:
    """Write status, content type and headers of an engine's answer into an empty message."""
    message.status = head.status
    message.content_type = head.content_type
    for name, text in head.headers:
        message.headers.add(name=name, value=text)


def fill_reply(message: raw_pb2.RawReply, reply: Reply) -> None:
    """Write a whole answer, its body untouched, into an empty message."""
    fill_head(message.head, reply.head)
    message.body = reply.body


def fill_usage(message: tokens_pb2.Usage, usage: Usage) -> None:
    """Write a usage into an empty message."""
    message.SetInParent()
    message.input_tokens = usage.input_tokens
    message.output_tokens = usage.output_tokens
    message.cached_tokens = usage.cached_tokens
    message.reasoning_tokens = usage.reasoning_tokens


def usage_message(usage: Usage | None) -> tokens_pb2.Usage | None:
    """The contract's form of a usage."""
    if usage is None:
        return None
    message = tokens_pb2.Usage()
    fill_usage(message, usage)
    return message
