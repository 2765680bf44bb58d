"""x-lexora-priority, x-lexora-fallback and x-lexora-resume, from the request to the router."""

from typing import Any

import pytest
from tests.support.paths import FORM_PATHS
from tests.unit.gateway.support import BODY, CHAT, JSON, STREAMED, ScriptedRouter, client, make_app, whole

from lexora_contract.messages import options_message, options_of
from lexora_contract.port import Options

FORM = {"content-type": "multipart/form-data; boundary=x"}
MANY_LABELS = ",".join(f"k{number}=v" for number in range(17))
CALLS = [
    (CHAT, BODY, JSON),
    (CHAT, STREAMED, JSON),
    ("/v1/embeddings", BODY, JSON),
    (FORM_PATHS[0], b"--x--", FORM),
    ("/generate", b'{"prompt": "x"}', JSON),
    ("/chat", b'{"prompt": "x", "stream": true}', JSON),
    ("/v1/classify-task", b'{"task_description": "x"}', JSON),
]


async def ask(path: str, body: bytes, headers: dict[str, str]) -> tuple[Any, ScriptedRouter]:
    router = ScriptedRouter()
    router.relays = whole(b"{}")
    async with client(make_app(router)) as http:
        return await http.post(path, content=body, headers=headers), router


@pytest.mark.parametrize(("path", "body", "headers"), CALLS)
async def test_every_call_takes_its_options(path: str, body: bytes, headers: dict[str, str]) -> None:
    more = {"x-lexora-priority": "high", "x-lexora-fallback": "never", "x-lexora-resume": "never", "x-request-id": "r"}
    more |= {
        "x-lexora-max-queue-time": "2.25",
        "x-lexora-session": "chat-7",
        "idempotency-key": "k-1",
        "x-lexora-labels": "team=search , env.a=p=q ~",
    }
    _, router = await ask(path, body, headers | more)
    expected = Options(
        "r",
        priority=100,
        fallback_allowed=False,
        resume_allowed=False,
        max_queue_time=2.25,
        labels=(("env.a", "p=q ~"), ("team", "search")),
        session_key="chat-7",
        idempotency_key="k-1",
    )
    [(_, request, _)] = router.asked
    asked = request.call.options if hasattr(request, "call") else request.options
    assert asked in (expected, options_message(expected))
    assert options_of(options_message(expected)) == expected


async def test_without_headers_nothing_is_asked() -> None:
    _, router = await ask(CHAT, BODY, JSON)
    options = router.asked[0][1].options
    assert options == Options(options.request_id)
    assert options_of(options_message(options)) == options


@pytest.mark.parametrize(
    ("given", "priority"),
    [("low", 0), ("normal", 50), ("high", 100), ("HIGH", 100), ("Normal", 50), ("0", 0), ("7", 7), ("100", 100)],
)
async def test_a_priority_is_a_name_or_a_number(given: str, priority: int) -> None:
    _, router = await ask(CHAT, BODY, JSON | {"x-lexora-priority": given})
    assert router.asked[0][1].options.priority == priority


@pytest.mark.parametrize(
    ("header", "given"),
    [
        *(("x-lexora-priority", value) for value in ("", "101", "-1", "+7", "1_0", "1.5", "urgent", "9" * 5000)),
        *(("x-lexora-fallback", value) for value in ("", "no", "always", "never, never")),
        ("x-lexora-resume", "false"),
        *(("idempotency-key", value) for value in ("", "two words", "k" * 256)),
        *(
            ("x-lexora-labels", value)
            for value in ("", "team", "team=a,", "Team=a", "=a", "a=1,a=2", "a=" + "x" * 257, MANY_LABELS)
        ),
        ("x-lexora-labels", b"a=\xff"),
        *(("x-lexora-max-queue-time", value) for value in ("", "-1", "soon", "inf", "nan", "1e3", "1s", "9" * 5000)),
    ],
)
@pytest.mark.parametrize(("path", "body", "headers"), CALLS)
async def test_garbage_is_refused_by_name(path: str, body: bytes, headers: dict[str, str], header: str, given: str) -> None:
    response, router = await ask(path, body, headers | {header: given})
    assert (response.status_code, response.json()["error"]["param"]) == (400, header)
    assert not router.asked


async def test_never_may_be_written_large() -> None:
    _, router = await ask(CHAT, BODY, JSON | {"x-lexora-fallback": "Never"})
    assert not router.asked[0][1].options.fallback_allowed
