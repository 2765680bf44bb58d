"""POST /tokenize and /detokenize."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexora_sim.api.completions import read_prompts
from lexora_sim.api.fields import read_fields
from lexora_sim.text.logprobs import token_text
from lexora_sim.text.template import chat_ids
from lexora_sim.text.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from lexora_sim.api.app import App
    from lexora_sim.api.exchange import Exchange


def serve_tokenize(app: App, exchange: Exchange) -> None:
    """Answer with the ids of a prompt or a conversation; raises ApiError."""
    fields = read_fields(exchange.request)
    messages, prompt = fields.items("messages"), fields.string("prompt")
    if messages is None and prompt is None:
        fields.missing("prompt")
    named = fields.boolean("return_token_strs")
    started = fields.boolean("add_generation_prompt", default=True)
    continued = fields.boolean("continue_final_message")
    fields.check()
    app.accept(exchange, fields, app.any_model(fields), 0)
    if prompt is not None:
        ids = VOCABULARY.encode(prompt)
    else:
        plain = [message for message in messages or [] if isinstance(message, dict)]
        tools = fields.items("tools")
        ids = chat_ids(plain, tools=tools, add_generation_prompt=started, continue_final_message=continued)
    strings = [token_text(token) for token in ids] if named else None
    body = {"count": len(ids), "max_model_len": app.settings.max_model_len, "tokens": ids, "token_strs": strings}
    exchange.respond_json(200, body)


def serve_detokenize(app: App, exchange: Exchange) -> None:
    """Answer with the text of token ids; raises ApiError."""
    fields = read_fields(exchange.request)
    tokens = fields.items("tokens", required=True)
    fields.check()
    app.accept(exchange, fields, app.any_model(fields), 0)
    ids = read_prompts(tokens, app.settings)[0] if tokens else []
    exchange.respond_json(200, {"prompt": VOCABULARY.decode(ids)})
