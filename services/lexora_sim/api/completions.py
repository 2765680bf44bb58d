"""POST /v1/completions: text or token-id prompts, alone or in lists."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lexora_sim.api.chat import make_choices
from lexora_sim.api.completion_face import CompletionFace, CompletionOptions
from lexora_sim.api.errors import bad_request
from lexora_sim.api.fields import read_fields
from lexora_sim.api.generation import Choice, Generation
from lexora_sim.api.sampling import check_characters, check_length, check_logprobs, read_sampling
from lexora_sim.api.structured import forced_text
from lexora_sim.settings import SimSettings
from lexora_sim.text.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from lexora_sim.api.app import App
    from lexora_sim.api.exchange import Exchange

_DEFAULT_TOKENS = 16
_MAX_PROMPTS = 2048


def serve_completion(app: App, exchange: Exchange) -> None:
    """Answer one completion request; raises ApiError."""
    fields = read_fields(exchange.request)
    sampling = read_sampling(fields, app.settings, chat=False)
    logprobs = fields.integer("logprobs")
    echo = fields.boolean("echo")
    fields.check()
    model = app.model_of(fields, pooling=False)
    check_logprobs(logprobs)
    prompts = read_prompts(fields.body.get("prompt"), app.settings)
    choices: list[Choice] = []
    for prompt in prompts:
        check_length(len(prompt), app.settings)
        text = forced_text(fields.body, prompt, sampling.seed)
        # Absent is 16 tokens, null as many as there is room for.
        default = app.settings.max_model_len if "max_tokens" in fields.body else _DEFAULT_TOKENS
        for choice in make_choices(prompt, text, sampling, app.settings, default):
            choice.index = len(choices)
            choices.append(choice)
    app.accept(exchange, fields, model, sampling.priority)
    face = CompletionFace(
        identity=app.answer_id(exchange, "cmpl"),
        created=int(time.time()),
        model=model,
        fingerprint=app.fingerprint,
        choices=choices,
        sampling=sampling,
        options=CompletionOptions(logprobs, echo, app.settings.prompt_tokens_details),
    )
    Generation(app.scheduler, exchange, model, sampling=sampling, choices=choices, face=face).start()


def read_prompts(value: Any, settings: SimSettings) -> list[list[int]]:
    """Return the token ids of every prompt: a string, a list of strings, of ids, or of lists of ids.

    Raises ApiError, also for a text that is too long for the model whatever its tokens.
    """
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.")
    if len(value) > _MAX_PROMPTS and not isinstance(value[0], int):
        raise bad_request(f"at most {_MAX_PROMPTS} prompts are taken at once.", "prompt")
    if all(isinstance(item, int) for item in value):
        return [_ids(value)]
    return [_ids(item) if isinstance(item, list) else _text(item, settings) for item in value]


def _text(value: Any, settings: SimSettings) -> list[int]:
    if not isinstance(value, str):
        raise bad_request("a prompt is a string or a list of token ids.", "prompt")
    check_characters(len(value), settings)
    return VOCABULARY.encode(value)


def _ids(value: list[Any]) -> list[int]:
    for token in value:
        if not isinstance(token, int) or isinstance(token, bool):
            raise bad_request("a prompt is a string or a list of token ids.", "prompt")
        if not 0 <= token < len(VOCABULARY):
            raise bad_request(f"Token id {token} is out of vocabulary")
    return value
