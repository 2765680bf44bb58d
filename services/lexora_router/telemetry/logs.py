"""Log set-up, and the one line per finished call. Never a prompt, never a secret."""

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import ClassVar, TextIO

import msgspec
import structlog
from msgspec import UNSET, UnsetType

from lexora_contract.answer import hops_text
from lexora_contract.escape import escaped, escaped_json, escaped_lines
from lexora_router.errors import RouterError, TooManyAttempts
from lexora_router.telemetry.account import CallRecord
from lexora_router.telemetry.console_line import ConsoleLine
from lexora_router.telemetry.shared_stream import SharedStream
from lexora_router.telemetry.trace_context import trace_id_of
from lexora_router.telemetry.writer import LineWriter


def configure_logs(
    level: str, style: str, stream: TextIO | SharedStream = sys.stdout, *, worker: int | None = None
) -> LineWriter:
    """Send structlog and the standard library's logging to `stream`, as console lines or JSON; close the writer at the end.

    Lines of one of several processes say which `worker` they are from.
    """
    writer = LineWriter(stream)
    render: list[structlog.typing.Processor]
    if style == "json":
        render = [structlog.processors.JSONRenderer(serializer=_to_json)]
        AccessLog.line = _json_line
    else:
        colors = stream.isatty() and not os.environ.get("NO_COLOR")
        console = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0)
        render = [_escape, console]
        AccessLog.line = _console_line(console)
    AccessLog.lines = writer if logging.getLevelNamesMapping()[level] <= logging.INFO else None
    AccessLog.worker = UNSET if worker is None else worker
    shared: list[structlog.typing.Processor] = [
        *(() if worker is None else (_from(worker),)),
        structlog.processors.add_log_level,
        _stamp,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(file=writer),  # type: ignore[arg-type]  # a sink needs write and flush only
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(writer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for noisy in ("asyncio", "aiohttp", "grpc", "httpx", "httpcore", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return writer


def _from(worker: int) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["worker"] = worker
        return event

    return add


_second, _prefix = 0, ""


def _stamp(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event["timestamp"] = _timestamp()
    return event


def _timestamp() -> str:
    """UTC in ISO 8601 with microseconds; the date is formatted once a second, which makes it five times as fast."""
    global _second, _prefix
    second, nanos = divmod(time.time_ns(), 1_000_000_000)
    if second != _second:
        _second, _prefix = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{_prefix}.{nanos // 1000:06d}Z"


_encode = msgspec.json.Encoder(enc_hook=str).encode


def _to_json(value: object, **_: object) -> str:
    line = _encode(value)
    # Of ASCII the encoder has escaped all that must be, but DEL.
    return line.decode() if line.isascii() and b"\x7f" not in line else escaped_json(line.decode())


def _json_line(level: str, line: "_Line") -> str:
    line.event, line.level, line.timestamp = "call", level, _timestamp()
    return _to_json(line)


def _console_line(renderer: structlog.dev.ConsoleRenderer) -> "Callable[[str, _Line], str]":
    lines = {level: ConsoleLine(renderer, level, "call") for level in ("info", "error")}
    writers: dict[tuple[object, ...], Callable[[str, object], str]] = {}  # by what an ordinary line lacks

    def write(level: str, line: _Line) -> str:
        if type(line) is not _Ordinary:
            return lines[level](_timestamp(), _present(line))
        lacks = (line.tokens_cached is UNSET, line.user is UNSET, line.key is UNSET)
        writer = writers.get(lacks)
        if writer is None:
            writer = writers[lacks] = lines["info"].of(_present(line))
        return writer(_timestamp(), line)

    return write


def _escape(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What is no text is shown by its repr, which escapes. The lines of a traceback are indented: none looks like the log's."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = escaped_lines(value).replace("\n", "\n  ") if key == "exception" else escaped(value)
    return event


class _Facts(msgspec.Struct, gc=False):
    """What every line has."""

    request_id: str
    path: str
    model: str
    backend: str
    endpoint: str
    status: int
    stream: bool
    tenant: str
    priority: int | None
    queue_ms: float | None
    ttft_ms: float | None
    total_ms: float | None
    tokens_in: int | None
    tokens_out: int | None
    attempts: int
    retries: int
    tokens_cached: int | UnsetType = UNSET
    user: str | UnsetType = UNSET
    key: str | UnsetType = UNSET
    worker: int | UnsetType = UNSET


class _Ordinary(_Facts, gc=False):
    """A line with what structlog would add."""

    event: str = ""
    level: str = ""
    timestamp: str = ""


class _Full(_Facts, gc=False):
    """The same with what applies to some calls only."""

    trace_id: str | UnsetType = UNSET
    session_key: str | UnsetType = UNSET
    idempotency_key: str | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    fallback: str | UnsetType = UNSET
    resumed: str | UnsetType = UNSET
    rejected: str | UnsetType = UNSET
    tokens_wasted: int | UnsetType = UNSET
    auto_model: str | UnsetType = UNSET
    auto_task: str | UnsetType = UNSET
    auto_confidence: float | UnsetType = UNSET
    auto_by: str | UnsetType = UNSET
    error: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    event: str = ""
    level: str = ""
    timestamp: str = ""


_Line = _Ordinary | _Full
_ADDED = frozenset(("event", "level", "timestamp"))  # by structlog


def _present(line: _Line) -> dict[str, object]:
    """The fields that are the call's own."""
    fields = msgspec.structs.asdict(line)
    return {name: value for name, value in fields.items() if value is not UNSET and name not in _ADDED}


class AccessLog:
    """The book that writes one line per finished call.

    The line is as structlog would write it, without its chain of processors, which took four times as long.
    """

    line: ClassVar[Callable[[str, _Line], str]] = staticmethod(_json_line)  # of a level and a line
    worker: ClassVar[int | UnsetType] = UNSET  # its number, of one of several processes
    lines: ClassVar[LineWriter | None] = None  # where lines go; None: not every level is written, or nothing is set up

    def __init__(self) -> None:
        self._log = structlog.get_logger("lexora.call").bind()

    def end(self, record: CallRecord) -> None:
        """Write the line; of guesses at keys, which the audit log sums up, each address has its first ones only."""
        if record.reason == TooManyAttempts.reason:
            return
        line, lines = _line_of(record), AccessLog.lines
        bug = record.status >= 500 and record.error is not None and not isinstance(record.error, RouterError)
        level = "error" if bug else "info"
        line.worker = AccessLog.worker
        if lines is not None:
            lines.write(AccessLog.line(level, line) + "\n")
        elif bug:
            self._log.error("call", **_present(line))
        else:
            self._log.info("call", **_present(line))


def _line_of(record: CallRecord) -> _Line:
    call, receipt = record.call, record.receipt
    usage, started = receipt.usage, call.started
    rest = call.trace or call.session_key or call.idempotency_key or call.labels or receipt.auto
    line = (_Ordinary if record.straight and not rest else _Full)(
        call.id,
        record.path,
        call.model,
        receipt.backend,
        receipt.endpoint,
        record.status,
        call.stream,
        record.tenant,
        call.priority,
        _ms(receipt.dispatched_at - started) if receipt.dispatched_at else None,
        _ms(receipt.first_event_at - started) if receipt.first_event_at else None,
        _ms(record.seconds) if receipt.finished_at else None,
        None if usage is None else usage.input_tokens,
        None if usage is None else usage.output_tokens,
        receipt.attempts,
        record.retries,
    )
    if usage is not None and usage.cached_tokens:
        line.tokens_cached = usage.cached_tokens
    if call.account:
        line.user, line.key = call.user or UNSET, call.principal.key or UNSET
    if isinstance(line, _Full):
        _add_rest(line, record)
    return line


def _add_rest(line: _Full, record: CallRecord) -> None:
    """What applies to some calls only, as far as it applies to this one."""
    call, receipt, error = record.call, record.receipt, record.error
    line.trace_id = trace_id_of(call.trace) or UNSET
    line.session_key = call.session_key or UNSET
    line.idempotency_key = call.idempotency_key or UNSET
    line.labels = dict(call.labels) or UNSET
    line.fallback = hops_text(receipt.hops) or UNSET
    line.resumed = receipt.resumed or UNSET
    line.rejected = record.rejection or UNSET
    line.tokens_wasted = sum(record.wasted.values()) or UNSET
    if receipt.auto is not None:
        line.auto_model, line.auto_task, line.auto_by = receipt.auto.model, receipt.auto.task_type, receipt.auto.by
        line.auto_confidence = round(receipt.auto.confidence, 3)
    if isinstance(error, RouterError):
        line.error, line.detail = error.reason, error.message[:500]
    elif error is not None and record.status >= 500:
        line.error = "INTERNAL"


def _ms(seconds: float) -> float:
    return int(seconds * 100_000 + 0.5) / 100
