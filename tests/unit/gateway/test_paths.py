import pytest

from lexora_gateway.paths import probably_meant, unknown_path

KNOWN = {
    "/",
    "/chat",
    "/generate",
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/rerank",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/models",
    "/v1/rerank",
    "/v1/responses",
}


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("//v1//chat/completions", "/v1/chat/completions"),
        ("/V1/Chat/Completions", "/v1/chat/completions"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/openai/deployments/gpt-4/chat/completions", "/v1/chat/completions"),
        ("/anthropic/v1/messages", "/v1/messages"),
        ("/api/v1/models", "/v1/models"),
        ("/models", "/v1/models"),
        ("/v1/health", "/health"),
        ("/metrics/", "/metrics"),
        ("/healthz", "/health"),
        ("/api/tags", "/v1/models"),
        ("/api/chat", "/v1/chat/completions"),
        ("/v1/images/generations", None),
        ("/v1/audio/speech", None),
        ("/v1/moderations", None),
        ("/v1/files", None),
        ("/v1/realtime", None),
        ("/v1", None),
        ("/robots.txt", None),
        ("/" + "chat/completions/" * 1000, None),
    ],
)
def test_what_was_probably_meant(path: str, meant: str | None) -> None:
    assert probably_meant(path, KNOWN) == meant


def test_the_message_is_bounded() -> None:
    assert len(unknown_path("/" + "x" * 60_000, KNOWN)) < 300
