"""The options of `lexora sim`: one for every setting of the simulator. A test holds them against `SimSettings`."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import typer


@dataclass(frozen=True, slots=True)
class SimOption:
    """A setting as an option: its name in SimSettings, type, default and help."""

    name: str
    kind: Any
    default: Any
    help: str
    flag: str | None = None

    def parameter(self) -> inspect.Parameter:
        """The option as typer reads it from a signature."""
        flags = (self.flag,) if self.flag else ()
        option = typer.Option(*flags, help=self.help, metavar=_METAVARS.get(self.kind))
        default = list(self.default) if isinstance(self.default, tuple) else self.default
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[self.kind, option]
        )


_Texts = list[str]
_METAVARS = {str: "TEXT", str | None: "TEXT", int: "N", int | None: "N", float: "NUMBER", _Texts: "NAME"}

OPTIONS = (
    SimOption("host", str, "127.0.0.1", "Address to listen on."),
    SimOption("port", int, 8000, "Port to listen on; 0 picks a free one."),
    SimOption("models", _Texts, ("sim-model",), "Model to serve; may be repeated, the first is the default.", "--model"),
    SimOption("embedding_models", _Texts, (), "Pooling model: embeddings, rerank, score, classify.", "--embedding-model"),
    SimOption("api_key", str | None, None, 'Ask /v1/* for "Authorization: Bearer KEY".'),
    SimOption("version", str, "0.32.0", "Version that /version gives."),
    SimOption("max_model_len", int, 32_768, "Tokens of prompt and answer together."),
    SimOption("request_id_headers", bool, True, "Answer with x-request-id."),
    SimOption("prompt_tokens_details", bool, False, "Report cached tokens in usage."),
    SimOption("default_tokens", int, 64, "Length of a chat answer without max_tokens."),
    SimOption("natural_length", int, 256, "An answer ends by itself after about this many tokens."),
    SimOption("reasoning_tokens", int, 0, "The first tokens of a chat answer come as reasoning."),
    SimOption("embedding_dimensions", int, 64, "Length of a vector."),
    SimOption("max_embedding_dimensions", int, 4096, "Longest vector that may be asked for."),
    SimOption("ttft_ms", float, 5.0, "Milliseconds from admission to the first token, without prefill."),
    SimOption("itl_ms", float, 2.0, "Milliseconds between tokens; 0 is back to back."),
    SimOption("prefill_rate", float, 0.0, "Prompt tokens per second; 0 makes prefill free."),
    SimOption("prefill_slowdown", float, 0.0, "The first token's time grows by this fraction for every other running answer."),
    SimOption("decode_slowdown", float, 0.0, "itl-ms grows by this fraction for every other running answer."),
    SimOption("coalesce", int, 1, "Tokens per step, and so per event."),
    SimOption("max_num_seqs", int, 256, "Answers running at once; the rest wait."),
    SimOption("max_queued", int | None, None, "More waiting requests than this get 503."),
    SimOption("priority_scheduling", bool, False, "Let requests wait by priority instead of first come first served."),
    SimOption("kv_capacity_tokens", int, 1_048_576, "Tokens that fit into the KV cache."),
    SimOption("prefix_cache", bool, True, "Reuse the KV cache of equal beginnings."),
    SimOption("keep_alive", bool, True, "Serve further requests on a connection."),
    SimOption("max_body_bytes", int, 64 * 2**20, "Largest request body."),
    SimOption("keep_requests", int, 10_000, "Requests that /sim/requests remembers."),
    SimOption("keep_body_bytes", int, 2**20, "Bytes of each body that are remembered."),
    SimOption("keep_total_bytes", int, 128 * 2**20, "Bytes of all bodies that are remembered."),
    SimOption("seed", int, 0, "Seed of faults with a probability."),
    SimOption("shutdown_grace_ms", float, 3_000.0, "Milliseconds that a stopping simulator waits for its connections."),
)
