"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lexora_sim.api.chat_face import ChatFace, ChatOptions
from lexora_sim.api.errors import bad_request
from lexora_sim.api.fields import Fields, check_messages, read_fields
from lexora_sim.api.generation import Choice, Generation
from lexora_sim.api.sampling import Sampling, check_characters, check_length, check_logprobs, read_sampling, room
from lexora_sim.api.structured import forced_text
from lexora_sim.api.tools import choose_call
from lexora_sim.settings import SimSettings
from lexora_sim.text.language import Forced, Language
from lexora_sim.text.template import chat_ids
from lexora_sim.text.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from lexora_sim.api.app import App
    from lexora_sim.api.exchange import Exchange


def serve_chat(app: App, exchange: Exchange) -> None:
    """Answer one chat request; raises ApiError."""
    fields = read_fields(exchange.request)
    messages = fields.items("messages", required=True) or []
    tools = fields.items("tools")
    sampling = read_sampling(fields, app.settings, chat=True)
    model = app.model_of(fields, pooling=False)
    options = _options(fields)
    check_messages(messages)
    check_characters(count_characters(messages), app.settings)
    prompt = _prompt(fields, messages, tools)
    check_length(len(prompt), app.settings)
    call = choose_call(tools, fields.body.get("tool_choice"), messages, prompt, sampling.seed)
    text = call.arguments if call else forced_text(fields.body, prompt, sampling.seed)
    choices = make_choices(prompt, text, sampling, app.settings, app.settings.default_tokens)
    app.accept(exchange, fields, model, sampling.priority)
    options.reasoning_tokens = app.settings.reasoning_tokens if text is None else 0
    options.details = app.settings.prompt_tokens_details
    face = ChatFace(
        identity=app.answer_id(exchange, "chatcmpl"),
        created=int(time.time()),
        model=model,
        fingerprint=app.fingerprint,
        choices=choices,
        sampling=sampling,
        options=options,
        call=call,
    )
    Generation(app.scheduler, exchange, model, sampling=sampling, choices=choices, face=face).start()


def make_choices(prompt: list[int], text: str | None, sampling: Sampling, settings: SimSettings, default: int) -> list[Choice]:
    """Return `n` choices for one prompt; `text` is forced when given. Raises ApiError when the answer cannot fit."""
    forced = VOCABULARY.encode(text) if text is not None else None
    wanted = sampling.max_tokens
    if wanted is None:
        most = default if forced is None else len(forced) + 1
        wanted = min(most, settings.max_model_len - len(prompt))
    else:
        room(len(prompt), wanted, settings)
    choices = []
    for index in range(sampling.n):
        source = Forced(forced) if forced is not None else Language(prompt, sampling.seed + index, settings.natural_length)
        choices.append(Choice(index, prompt, source, wanted))
    return choices


def _options(fields: Fields) -> ChatOptions:
    wanted = fields.boolean("logprobs")
    top = fields.integer("top_logprobs")
    fields.check()
    check_logprobs(top)
    if top and not wanted:
        raise bad_request("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    return ChatOptions(logprobs=wanted, top=top or 0)


def _prompt(fields: Fields, messages: list[Any], tools: list[Any] | None) -> list[int]:
    continued = fields.boolean("continue_final_message")
    started = fields.boolean("add_generation_prompt", default=True)
    fields.check()
    if continued and started:
        raise bad_request("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    return chat_ids(messages, tools=tools, add_generation_prompt=started, continue_final_message=continued)


def count_characters(messages: list[Any]) -> int:
    """Return the length of all text in a conversation."""
    contents = [message.get("content") for message in messages]
    texts = [content for content in contents if isinstance(content, str)]
    for parts in contents:
        if isinstance(parts, list):
            texts += [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return sum(map(len, texts))
