"""The typed form of the contract to and from OpenAI's JSON, which is the router's inner form.

Requests become bytes (`*_body`, which raise InvalidRequest), answers become messages (`*_response` and `*_chunks`, which
raise UpstreamInvalid). Answers are read tolerantly: unknown and missing fields and nulls are
fine.
"""

from lexora_router.edge.translate.chat import chat_body
from lexora_router.edge.translate.chat_answer import chat_chunks, chat_response
from lexora_router.edge.translate.completion import completion_body, completion_chunks, completion_response
from lexora_router.edge.translate.embed import embed_body, embed_response

__all__ = [
    "chat_body",
    "chat_chunks",
    "chat_response",
    "completion_body",
    "completion_chunks",
    "completion_response",
    "embed_body",
    "embed_response",
]
