"""What differs between families of engines: one adapter has all that is particular about one family. None does I/O.

The base is OpenAI's own API as most servers speak it; a family overrides what it does otherwise. The attributes of the class
say what the family can do, and the configuration reads them for its defaults and checks; an instance is one backend's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import msgspec
from yarl import URL

from lexora_contract.answer import Reply
from lexora_contract.operations import operation_of
from lexora_router.call import Call
from lexora_router.errors import UpstreamRefused
from lexora_router.payload.multipart import is_form, with_model_multipart
from lexora_router.payload.rewrite import with_model, with_stream_usage


@dataclass(frozen=True, slots=True)
class LoadMetrics:
    """Names of an engine's Prometheus metrics: requests that wait, requests that run, and the share of the cache in use."""

    waiting: bytes
    running: bytes
    cache: tuple[bytes, ...]  # by version of the engine


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model as its backend lists it: `entry` is its JSON in OpenAI's form, `max_model_len` in tokens."""

    id: str
    entry: bytes
    max_model_len: int | None


class Translation(Protocol):
    """One call in an engine's own dialect, and its answer back in the client's. Synchronous: it stands in the way of chunks.

    `path` is where the engine is asked.
    """

    path: str

    def take_body(self) -> bytes:
        """What the engine is asked; what takes it is the only one to hold it from now on."""

    def reply(self, reply: Reply) -> Reply:
        """A whole answer; raises UpstreamInvalid when it is none of the dialect."""

    def feed(self, data: bytes) -> bytes:
        """Whole events of a stream, given in order; empty where they say nothing to the client. Raises UpstreamInvalid."""

    def refusal(self, refused: UpstreamRefused) -> UpstreamRefused:
        """An error answer: its status and headers stay."""

    def error_event(self, payload: bytes) -> bytes:
        """The payload of an error inside a stream."""


class Translator(Protocol):
    """Makes the translation of one call."""

    def __call__(self, body: bytes, *, include_usage: bool) -> Translation:
        """Raises InvalidRequest for a body that asks for what the engine does not have."""


class AzureSettings(Protocol):
    """`azure` of the configuration."""

    @property
    def api(self) -> str:
        """`deployments` or `v1`."""

    @property
    def api_version(self) -> str | None:
        """A date, or a word such as `preview`."""


class Settings(Protocol):
    """What an adapter reads of its backend's configuration."""

    @property
    def health_path(self) -> str | None:
        """Where a probe goes."""

    @property
    def stream_usage(self) -> bool:
        """Whether streams are asked for usage."""

    @property
    def scheduling_policy(self) -> str:
        """`fcfs` or `priority`: how the engine orders what waits."""

    @property
    def azure(self) -> AzureSettings | None:
        """The section of Azure OpenAI."""


class _Entry(msgspec.Struct):
    id: str
    max_model_len: int | None = None


_decode_entry = msgspec.json.Decoder(_Entry).decode


class Adapter:
    """One family of engines, and as an instance one backend of it; `key` is the backend's own."""

    provider: ClassVar[str] = "openai"  # gen_ai.provider.name of OpenTelemetry
    section: ClassVar[str | None] = None  # keys of its own, as a section of the backend with this name
    # Defaults of the configuration: where a probe goes (None: connections are tried), attempts at once at one address.
    default_health_path: ClassVar[str | None] = None
    default_max_concurrency: ClassVar[int | None] = None
    # What it can do.
    load_metrics: ClassVar[LoadMetrics | None] = None  # None: it does not say how much waits, so no `concurrency: auto`
    schedules_by_priority: ClassVar[bool] = False  # when `scheduling_policy` says so; else a body's `priority` is its own word
    sends_end_mark: ClassVar[bool] = False  # always: a stream without one is that of an engine that died
    death: ClassVar[bytes] = b""  # what the body of a 500 has in it when the engine behind the server has died
    token_ids: ClassVar[bool] = False  # gives them on demand, and continues from them
    continues_text: ClassVar[bool] = True  # takes the beginning of an answer (`continue_final_message`)
    switches_thinking: ClassVar[bool] = False  # by `chat_template_kwargs`
    lists_what_is_asked: ClassVar[bool] = True  # the names in its list of models are those that calls name
    # Paths of the operations that it serves, None: any; and those of them that it serves in another dialect only.
    serves: ClassVar[frozenset[str] | None] = None
    translators: ClassVar[Mapping[str, Translator]] = {}

    def __init__(self, settings: Settings, key: str | None) -> None:
        self._key = key
        self._health_path = settings.health_path
        self._stream_usage = settings.stream_usage

    @classmethod
    def faults(cls, backend: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield what the configuration of such a backend lacks: key path and message. `backend` is not validated yet."""
        yield from ()

    @classmethod
    def base(cls, url: str) -> str:
        """The address that paths are put behind, from a configured one without a trailing slash and without /v1."""
        return url

    def url(self, base: URL, path: str, model: str) -> URL:
        """Where a call goes; raises InvalidRequest for a model that cannot be asked there."""
        return base.joinpath(path.lstrip("/")) if base.path != "/" else base.with_path(path)

    def headers(self) -> dict[str, str]:
        """Headers that every request has: the backend's own key, and what else the family wants."""
        return {"authorization": f"Bearer {self._key}"} if self._key else {}

    def models_url(self, base: URL) -> URL:
        """Where the engine lists its models."""
        return self.url(base, "/v1/models", "")

    def health_url(self, base: URL) -> URL | None:
        """Where a probe goes; None where there is nothing free of charge to ask."""
        return self.url(base, self._health_path, "") if self._health_path else None

    def metrics_url(self, base: URL) -> URL:
        """Where `load_metrics` are."""
        return self.url(base, "/metrics", "")

    def listed(self, entry: bytes) -> ListedModel:
        """One entry of the list of models. Raises msgspec.ValidationError for an invalid one."""
        found = _decode_entry(entry)
        return ListedModel(found.id, entry, found.max_model_len)

    def body(self, call: Call) -> tuple[bytes, bool]:
        """The body for the engine, the client's own bytes where possible, and whether usage is asked for on our own account."""
        assert call.target is not None
        if call.response_id:
            return b"", False
        body, model = call.body, call.target.model
        if model and model != call.model:
            if is_form(call.content_type):
                body = with_model_multipart(call.content_type, body, model)
            else:
                body = with_model(body, model)
        body = self.with_priority(call, body)
        ask = call.stream and not call.include_usage and self._stream_usage and operation_of(call.path).stream_usage
        return (with_stream_usage(body) if ask else body), ask

    def with_priority(self, call: Call, body: bytes) -> bytes:
        """The body with the call's priority. What a client's own `priority` in it means is the engine's to say."""
        return body
