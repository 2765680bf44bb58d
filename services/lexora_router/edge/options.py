"""How a client may say that its call is to be treated, and within what bounds."""

from lexora.v1 import options_pb2
from lexora_contract.access import KEY_PREFIX
from lexora_contract.labels import labels_fault
from lexora_contract.limits import MAX_IDEMPOTENCY_KEY, MAX_REQUEST_ID
from lexora_contract.port import Options
from lexora_contract.priority import HIGH, LOW
from lexora_router.errors import InvalidRequest

_FALLBACK_POLICIES = frozenset(options_pb2.FallbackPolicy.values())
_RESUME_POLICIES = frozenset(options_pb2.ResumePolicy.values())


def check_options(options: Options, request_id: str) -> None:
    """Raise InvalidRequest, which names the field, for options that are out of bounds; `request_id` is what the call got."""
    if options.request_id and options.request_id != request_id:
        words = f"request_id takes at most {MAX_REQUEST_ID} visible ASCII characters, and no key."
        raise InvalidRequest(words, "options.request_id")
    if options.priority is not None and not LOW <= options.priority <= HIGH:
        raise InvalidRequest(f"priority must be {LOW} to {HIGH}.", "options.priority")
    if options.max_queue_time is not None and options.max_queue_time < 0:
        raise InvalidRequest("max_queue_time must be 0 or more.", "options.max_queue_time")
    if options.idempotency_key and not is_key(options.idempotency_key):
        words = f"idempotency_key takes at most {MAX_IDEMPOTENCY_KEY} visible ASCII characters, and no key of this gateway."
        raise InvalidRequest(words, "options.idempotency_key")
    if options.labels and (fault := labels_fault(options.labels)):
        raise InvalidRequest(f"labels {fault}", "options.labels")


def check_policies(options: options_pb2.CallOptions) -> None:
    """Raise InvalidRequest, which names the field, for a policy that this version does not have."""
    if options.fallback not in _FALLBACK_POLICIES:
        raise InvalidRequest("fallback is none of the known policies.", "options.fallback")
    if options.resume not in _RESUME_POLICIES:
        raise InvalidRequest("resume is none of the known policies.", "options.resume")


def is_key(key: str) -> bool:
    """Whether this can be an idempotency key: it goes to the engine, so it is no key of this gateway."""
    visible = key.isascii() and key.isprintable() and " " not in key
    return len(key) <= MAX_IDEMPOTENCY_KEY and visible and KEY_PREFIX not in key
