"""lexora.client without a router: requests, settings, errors and when a call is repeated."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from lexora.client import AsyncClient, LexoraError, Settings
from lexora.client._errors import wait_before
from lexora.client._requests import chat_call
from lexora.v1.chat_pb2 import ROLE_ASSISTANT, ROLE_USER, ChatMessage
from lexora.v1.options_pb2 import FALLBACK_POLICY_NEVER
from lexora.v1.router_pb2 import StreamRequest, StreamResponse
from lexora.v1.router_pb2_grpc import RouterServiceServicer, add_RouterServiceServicer_to_server

WEATHER = {"name": "weather", "description": "of a town", "parameters": {"type": "object"}}


def test_a_text_is_a_message_of_the_user_and_fields_find_their_place() -> None:
    call = chat_call("m", "Hi", None, Settings(user="team", priority=70), {"max_tokens": 5, "seed": None, "logprobs": True})
    assert [(each.role, each.text) for each in call.chat.messages] == [(ROLE_USER, "Hi")]
    assert call.chat.sampling.max_tokens == 5
    assert not call.chat.sampling.HasField("seed")
    assert call.chat.logprobs
    assert (call.options.user, call.options.priority) == ("team", 70)


def test_messages_in_both_forms_and_options_above_the_defaults() -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        ChatMessage(role=ROLE_ASSISTANT, text="Hello"),
        {"role": "ROLE_USER", "text": "?"},
    ]
    call = chat_call("m", messages, {"priority": 0, "fallback": FALLBACK_POLICY_NEVER}, Settings(user="team", priority=70), {})
    assert [each.text for each in call.chat.messages] == ["Hi", "Hello", "?"]
    assert (call.options.user, call.options.priority, call.options.fallback) == ("team", 0, FALLBACK_POLICY_NEVER)


@pytest.mark.parametrize("given", [WEATHER, {"type": "function", "function": WEATHER}])
def test_tools_in_both_forms(given: dict[str, object]) -> None:
    (tool,) = chat_call("m", "Hi", None, Settings(), {"tools": [given]}).chat.tools
    assert (tool.function.name, tool.function.description, tool.function.parameters_json) == (
        "weather",
        "of a town",
        '{"type": "object"}',
    )


def test_a_field_that_does_not_exist_is_named_with_the_nearest_one() -> None:
    with pytest.raises(TypeError, match="max_token; did you mean max_tokens"):
        chat_call("m", "Hi", None, Settings(), {"max_token": 5})


def test_settings_from_the_environment() -> None:
    environ = {
        "LEXORA_TARGET": "router:1",
        "LEXORA_TIMEOUT": "2.5",
        "LEXORA_RETRIES": "0",
        "LEXORA_USER": "u",
        "LEXORA_PRIORITY": "9",
        "LEXORA_API_KEY": "sk-lx-a-b\n",
    }
    assert Settings.from_env(environ) == Settings("router:1", timeout=2.5, retries=0, user="u", priority=9, api_key="sk-lx-a-b")
    assert Settings.from_env({"LEXORA_TLS": "true"}).credentials is not None
    assert Settings.from_env({"LEXORA_TLS": "off"}).credentials is None
    assert Settings.from_env({"LEXORA_TIMEOUT": "none"}).timeout is None
    assert Settings.from_env({}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEXORA_TIMEOUT", "soon"),
        ("LEXORA_RETRIES", "-1"),
        ("LEXORA_PRIORITY", "x"),
        ("LEXORA_CA_FILE", "/nowhere"),
        ("LEXORA_CERT", "/nowhere"),
        ("LEXORA_TLS", "maybe"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        Settings.from_env({name: value})


def test_a_key_is_in_no_text() -> None:
    assert "secret" not in repr(Settings(api_key="secret"))
    with pytest.raises(ValueError, match="api_key must be printable ASCII without spaces"):
        Settings(api_key="secret key")


def failure(*details: object) -> LexoraError:
    status = Status()
    for detail in details:
        status.details.add().Pack(detail)  # type: ignore[arg-type]
    return LexoraError(grpc.StatusCode.RESOURCE_EXHAUSTED, "no", status)


def test_an_error_has_its_details() -> None:
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="call.options.user")])
    error = failure(ErrorInfo(reason="RATE_LIMITED"), RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)), bad)
    assert (str(error), error.reason, error.retry_after, error.field) == ("no", "RATE_LIMITED", 1.5, "call.options.user")


def test_a_call_is_repeated_only_when_the_router_says_so_and_its_deadline_allows_it() -> None:
    error = failure(RetryInfo(retry_delay=Duration(seconds=1)))
    assert wait_before(error, 1, None) == wait_before(error, 1, 1.5) == 1.0
    assert wait_before(error, 1, 1.0) is None
    assert wait_before(error, 0, None) is None
    assert wait_before(failure(ErrorInfo(reason="MODEL_NOT_FOUND")), 1, None) is None


class Cancels(RouterServiceServicer):
    """Ends every call with CANCELLED, a stream after its first message; the model "slow" is never answered."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()

    async def Generate(self, request: Any, context: Any) -> None:
        if request.call.chat.model == "slow":
            self.waits.set()
            await asyncio.Event().wait()
        await context.abort(grpc.StatusCode.CANCELLED, "the router ended it")

    async def Stream(self, request: StreamRequest, context: Any) -> AsyncIterator[StreamResponse]:
        yield StreamResponse(started={})
        await self.Generate(request, context)


async def texts(client: AsyncClient, model: str) -> list[str]:
    return [text async for text in await client.stream(model, "Hi")]


async def chat(client: AsyncClient, model: str) -> str:
    return (await client.chat(model, "Hi")).text


@pytest.mark.parametrize("call", [chat, texts])
async def test_a_call_that_is_cancelled_has_failed_and_only_a_cancelled_task_is_cancelled(
    call: Callable[[AsyncClient, str], Awaitable[object]],
) -> None:
    server = grpc.aio.server()
    servicer = Cancels()
    add_RouterServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        with pytest.raises(LexoraError, match="the router ended it") as ended:
            await call(client, "m")
        assert ended.value.code is grpc.StatusCode.CANCELLED
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await call(client, "slow")
        servicer.waits.clear()
        under_way = asyncio.ensure_future(call(client, "slow"))
        await servicer.waits.wait()
        await client.close()
        with pytest.raises(LexoraError) as closed:
            await under_way
        assert (closed.value.code, under_way.cancelled()) == (grpc.StatusCode.CANCELLED, False)
    await server.stop(0)
