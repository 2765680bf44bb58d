"""The endpoints of the engines' API that are relayed: one row each, and no part of the gateway has more about one.

vLLM's endpoints: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

import re
from dataclasses import dataclass
from enum import Enum

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = MESSAGES + "/count_tokens"
CLASSIFY_TASK = "/v1/classify-task"  # the router's own
_RESPONSES, _MESSAGES = RESPONSES + "/", MESSAGES + "/"


class Dialect(Enum):
    """How a stream marks its end, its usage and its errors, and what an error's body looks like."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One endpoint.

    `name` is OpenTelemetry's gen_ai.operation.name, where it has a well-known one, else the endpoint's own. Of the fields
    in `required` a request must have one. `form`: the body is a multipart form, and the answer may be plain text.
    `streams`: a request may ask for events. `stream_usage`: it may ask for usage in them (`stream_options.include_usage`).
    `queued`: it waits in an engine's own queue, so its body may have a `priority`. `auto`: it has a text by which a
    model is chosen. Of a query string the parameters in `query` reach the engine, of the request's headers those in `headers`.
    """

    path: str
    name: str
    dialect: Dialect = Dialect.OTHER
    required: tuple[str, ...] = ()
    form: bool = False
    streams: bool = False
    stream_usage: bool = False
    queued: bool = False
    auto: bool = False
    methods: tuple[str, ...] = ("POST",)
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


_ROWS = (
    Operation(
        path=CHAT,
        name="chat",
        dialect=Dialect.OPENAI,
        required=("messages",),
        streams=True,
        stream_usage=True,
        queued=True,
        auto=True,
    ),
    Operation(
        path=COMPLETIONS,
        name="text_completion",
        dialect=Dialect.OPENAI,
        required=("prompt", "prompt_embeds"),
        streams=True,
        stream_usage=True,
        queued=True,
        auto=True,
    ),
    Operation(path=EMBEDDINGS, name="embeddings", required=("input", "messages"), queued=True),
    Operation(
        path=RESPONSES,
        name="chat",
        dialect=Dialect.RESPONSES,
        required=("input", "prompt"),
        streams=True,
        queued=True,
        auto=True,
    ),
    Operation(
        path=MESSAGES,
        name="chat",
        dialect=Dialect.ANTHROPIC,
        required=("messages",),
        streams=True,
        queued=True,
        auto=True,
        headers=("anthropic-beta",),
    ),
    Operation(
        path=COUNT_TOKENS,
        name="count_tokens",
        dialect=Dialect.ANTHROPIC,
        required=("messages",),
        auto=True,
        headers=("anthropic-beta",),
    ),
    Operation(path=CHAT + "/render", name="render", required=("messages",), auto=True),
    Operation(path=COMPLETIONS + "/render", name="render", required=("prompt", "prompt_embeds"), auto=True),
    Operation(path="/v2/embed", name="embeddings"),
    Operation(path="/v1/rerank", name="rerank", queued=True),
    Operation(path="/v2/rerank", name="rerank", queued=True),
    Operation(path="/rerank", name="rerank", queued=True),
    Operation(path="/v1/score", name="score", queued=True),
    Operation(path="/score", name="score", queued=True),
    Operation(path="/pooling", name="pooling", queued=True),
    Operation(path="/classify", name="classify", queued=True),
    Operation(path="/tokenize", name="tokenize"),
    Operation(path="/detokenize", name="detokenize"),
    Operation(path="/v1/audio/transcriptions", name="transcription", form=True, streams=True),
    Operation(path="/v1/audio/translations", name="translation", form=True, streams=True),
)
OPERATIONS: dict[str, Operation] = {row.path: row for row in _ROWS}

# What is asked of a response that an engine has stored, by what follows the response's id. The engine that made it is asked.
_RESPONSE = RESPONSES + "/{response_id}"
_STORED = {
    "": Operation(
        path=_RESPONSE,
        name="response",
        dialect=Dialect.RESPONSES,
        streams=True,
        methods=("GET", "DELETE"),
        query=("include", "include_obfuscation", "starting_after", "stream"),
    ),
    "cancel": Operation(path=_RESPONSE + "/cancel", name="cancel", dialect=Dialect.RESPONSES),
    "input_items": Operation(
        path=_RESPONSE + "/input_items",
        name="input_items",
        dialect=Dialect.RESPONSES,
        methods=("GET",),
        query=("after", "before", "include", "limit", "order"),
    ),
}
STORED: dict[str, Operation] = {row.path: row for row in _STORED.values()}
_RESPONSE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,255}")


def stored_operation(method: str, path: str) -> tuple[Operation, str] | None:
    """The row of a path with a response's id in it, and the id; None where there is no such path, or not by this method."""
    if not path.startswith(_RESPONSES):
        return None
    response_id, _, below = path[len(_RESPONSES) :].partition("/")
    row = _STORED.get(below)
    return (row, response_id) if row and method in row.methods and _RESPONSE_ID.fullmatch(response_id) else None


def dialect_of(path: str) -> Dialect:
    """The dialect of a path; errors of paths below /v1/messages go to Anthropic's clients, served or not."""
    if path.startswith(_RESPONSES):
        return Dialect.RESPONSES
    return Dialect.ANTHROPIC if path.startswith(_MESSAGES) else operation_of(path).dialect


def operation_of(path: str) -> Operation:
    """The row of a path; of one that is not relayed a row that allows nothing, named after its last part."""
    return OPERATIONS.get(path) or STORED.get(path) or Operation(path=path, name=path.rpartition("/")[2])
