"""The requests that a resumable stream makes of its engines: the first one, and those of continuations."""

from typing import Any

import msgspec

from lexora_contract.operations import CHAT, COMPLETIONS
from lexora_router.resume.eligibility import ResumePlan
from lexora_router.resume.progress import Progress

# What completions do not have, and what is in the token ids already or would be wrong with more of them.
_CHAT_ONLY = (
    *("messages", "max_completion_tokens", "chat_template", "chat_template_kwargs", "add_generation_prompt"),
    *("continue_final_message", "documents", "include_reasoning", "reasoning_effort", "media_io_kwargs"),
    *("mm_processor_kwargs", "parallel_tool_calls", "return_prompt_text", "tools", "tool_choice", "functions"),
    *("function_call", "top_logprobs"),
)
_SETTLED = (
    *("prompt", "logprobs", "response_format", "truncate_prompt_tokens", "truncation_side", "add_special_tokens"),
    *("n", "best_of", "echo", "suffix"),
)
_DROPPED = frozenset((*_CHAT_ONLY, *_SETTLED))

_encode = msgspec.json.Encoder().encode


def with_ids(plan: ResumePlan, body: bytes) -> bytes:
    """The client's own request, asking for token ids; every other value keeps its bytes."""
    if not plan.ids or plan.asked_ids:
        return body
    if "return_token_ids" not in plan.fields:
        return body.replace(b"{", b'{"return_token_ids":true,', 1)
    return _encode({**plan.fields, "return_token_ids": True})


def by_ids(plan: ResumePlan, progress: Progress) -> bytes:
    """/v1/completions with the tokens so far as its prompt, for the rest of the answer."""
    assert progress.prompt is not None
    body: dict[str, Any] = {name: value for name, value in plan.fields.items() if name not in _DROPPED}
    body["prompt"] = progress.prompt.tolist() + progress.ids.tolist()
    # Without a limit a completion would end after a few tokens; null is as many as there is room for.
    body["max_tokens"] = None
    body["return_token_ids"] = True
    return _encode(_shrunk(body, plan, progress.kept))


def by_text(plan: ResumePlan, progress: Progress) -> bytes:
    """The client's request with the text so far put behind it, for the rest of the answer."""
    body: dict[str, Any] = dict(plan.fields)
    if plan.path == COMPLETIONS:
        body["prompt"] = msgspec.json.decode(plan.fields["prompt"], type=str) + progress.text
    else:
        messages = msgspec.json.decode(plan.fields["messages"], type=list[msgspec.Raw])
        body["messages"] = [*messages, {"role": "assistant", "content": progress.text}]
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return _encode(_shrunk(body, plan, progress.kept))


def _shrunk(body: dict[str, Any], plan: ResumePlan, kept: int) -> dict[str, Any]:
    """The limits less what is there already; a request that came so far asks for one token at least."""
    if plan.max_tokens is not None:
        newer = plan.path == CHAT and "max_completion_tokens" in body
        body["max_completion_tokens" if newer else "max_tokens"] = max(plan.max_tokens - kept, 1)
    if plan.min_tokens is not None:
        body["min_tokens"] = max(plan.min_tokens - kept, 0)
    return body
