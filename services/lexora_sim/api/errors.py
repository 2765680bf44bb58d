"""Errors as vLLM words them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any


class ApiError(Exception):
    """An answer with an error body. `code` in the body is the HTTP status as an integer."""

    def __init__(self, status: int, body: dict[str, Any], headers: list[tuple[str, str]] | None = None) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body
        self.headers = headers or []


def error_body(message: str, kind: str, param: str | None, code: int) -> dict[str, Any]:
    """Return vLLM's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def bad_request(message: str, param: str | None = None, value: Any = None) -> ApiError:
    """400; a `param` is also named in the message, with its value when one is given."""
    if param is not None:
        shown = f", value={value}" if value is not None else ""
        message = f"{message} (parameter={param}{shown})"
    return ApiError(400, error_body(message, "BadRequestError", param, 400))


def unsupported_media_type() -> ApiError:
    """400 for a body that is not declared as JSON."""
    message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    return ApiError(400, error_body(message, "Bad Request", None, 400))


def validation_error(problems: list[dict[str, Any]]) -> ApiError:
    """400 for a body of the wrong shape; each problem has type, loc, msg and input."""
    count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''}:"
    message = "\n  ".join([count, *map(repr, problems)])
    return ApiError(400, error_body(message, "Bad Request", problems[0]["loc"], 400))


def unknown_model(model: str, known: list[str], *, pooling: bool) -> ApiError:
    """404 for a model that is not served; a pooling server names no aliases."""
    message = f"The model `{model}` does not exist."
    if not pooling:
        message += f" Valid aliases: {', '.join(known)}."
    return ApiError(404, error_body(message, "NotFoundError", None if pooling else "model", 404))


def detail(status: int, headers: list[tuple[str, str]] | None = None, text: str | None = None) -> ApiError:
    """The web framework's own errors: unknown path, wrong method, undecodable body."""
    return ApiError(status, {"detail": text or HTTPStatus(status).phrase}, headers)


def engine_dead() -> ApiError:
    """500 after the engine's death."""
    text = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    return ApiError(500, error_body(text, "InternalServerError", None, 500))


def bug() -> ApiError:
    """500 for a fault of the simulator itself."""
    return ApiError(500, error_body("Internal server error", "InternalServerError", None, 500))


def overloaded() -> ApiError:
    """503 when the waiting queue is full."""
    text = "The server is overloaded: the number of queued requests is at its limit."
    return ApiError(503, error_body(text, "ServiceUnavailableError", None, 503))
