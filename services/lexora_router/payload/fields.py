"""What a request's body says of what the router decides on."""

import msgspec

from lexora_router.errors import InvalidRequest

MAX_MODEL_CHARS = 1024


class Fields(msgspec.Struct, kw_only=True, gc=False):
    """The fields that a decision needs; None where the client said nothing or null. Token counts are tokens."""

    model: str | None = None
    stream: bool = False
    user: str | None = None
    prompt_cache_key: str = ""
    max_tokens: int | None = None
    n: int | None = None
    priority: int | None = None
    include_usage: bool = False


def check_model(model: str) -> None:
    """Raise InvalidRequest for a name that is longer than any model's."""
    if len(model) > MAX_MODEL_CHARS:
        raise InvalidRequest(f"model is too long: at most {MAX_MODEL_CHARS} characters are allowed", "model")
