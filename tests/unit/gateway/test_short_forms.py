import json
from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from tests.unit.gateway.support import JSON, TYPED_RECEIPT, Script, ScriptedRouter, client, failing, failure, make_app

from lexora.v1 import chat_pb2
from lexora.v1.chat_pb2 import IMAGE_DETAIL_LOW, ChatChoice, ChatChunk, ChatDelta, ChatMessage, ChatResponse
from lexora.v1.completion_pb2 import CompletionChoice, CompletionChunk, CompletionResponse
from lexora.v1.errors_pb2 import UpstreamError
from lexora.v1.router_pb2 import GenerateResponse, StreamResponse

pytestmark = pytest.mark.usefixtures("both_sides")


def completes(text: str) -> Script:
    async def script(_: ScriptedRouter) -> GenerateResponse:
        return GenerateResponse(receipt=TYPED_RECEIPT, completion=CompletionResponse(choices=[CompletionChoice(text=text)]))

    return script


def chats(text: str | None) -> Script:
    async def script(_: ScriptedRouter) -> GenerateResponse:
        choice = ChatChoice(message=ChatMessage(role=chat_pb2.ROLE_ASSISTANT, text=text))
        return GenerateResponse(receipt=TYPED_RECEIPT, chat=ChatResponse(choices=[choice]))

    return script


def emits(*messages: StreamResponse, then: Exception | None = None) -> Script:
    async def script(_: ScriptedRouter, emit: Any) -> None:
        await emit(StreamResponse(started={"receipt": TYPED_RECEIPT}))
        for message in messages:
            await emit(message)
        if then is not None:
            raise then

    return script


def completion_piece(text: str, index: int = 0) -> StreamResponse:
    return StreamResponse(delta={"completion": CompletionChunk(choices=[CompletionChoice(index=index, text=text)])})


def chat_piece(text: str, index: int = 0) -> StreamResponse:
    return StreamResponse(delta={"chat": ChatChunk(choices=[ChatDelta(index=index, text=text)])})


async def ask(router: ScriptedRouter, path: str, body: Any, **options: Any) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    settings: dict[str, Any] = {"max_body_bytes": 1_000_000} | options
    async with client(make_app(router, **settings)) as http:
        return await http.post(path, content=content, headers=JSON)


async def test_generate() -> None:
    router = ScriptedRouter()
    router.generates = completes("日本 \n")
    response = await ask(router, "/generate", {"prompt": "go", "model": "m"})
    assert (response.status_code, response.json()) == (200, {"text": "日本 \n"})
    assert (response.headers["x-lexora-backend"], response.headers["x-lexora-attempts"]) == ("main", "2")
    request = router.asked[0][1]
    assert request.call.options.request_id == response.headers["x-request-id"]
    completion = request.call.completion
    assert (completion.model, completion.text, completion.extra_json) == ("m", "go", "")
    assert (completion.sampling.max_tokens, completion.sampling.temperature) == (1000, 0.7)
    assert not completion.sampling.HasField("top_p")


async def test_chat() -> None:
    router = ScriptedRouter()
    router.generates = chats("hi")
    messages = [{"role": "system", "content": "short"}, {"role": "user", "content": "hello"}]
    response = await ask(router, "/chat", {"messages": messages, "model": "m", "user": "team"})
    assert response.json() == {"response": "hi"}
    request = router.asked[0][1]
    assert request.call.options.user == "team"
    assert [(message.role, message.text) for message in request.call.chat.messages] == [
        (chat_pb2.ROLE_SYSTEM, "short"),
        (chat_pb2.ROLE_USER, "hello"),
    ]
    assert (request.call.chat.sampling.max_tokens, request.call.chat.sampling.temperature) == (1000, 0.7)


@pytest.mark.parametrize("field", ["prompt", "message"])
async def test_chat_with_one_text(field: str) -> None:
    router = ScriptedRouter()
    router.generates = chats("hi")
    await ask(router, "/chat", {field: "hello"})
    [message] = router.asked[0][1].call.chat.messages
    assert (message.role, message.text) == (chat_pb2.ROLE_USER, "hello")


async def test_null_content_stays_null() -> None:
    router = ScriptedRouter()
    router.generates = chats(None)
    assert (await ask(router, "/chat", {"prompt": "x"})).json() == {"response": None}


@pytest.mark.parametrize(("given", "used"), [({}, "default"), ({"model": None}, "default"), ({"model": "m"}, "m")])
async def test_the_default_model(given: dict[str, Any], used: str) -> None:
    router = ScriptedRouter()
    router.generates = completes("")
    await ask(router, "/generate", {"prompt": "x"} | given, default_model="default")
    assert router.asked[0][1].call.completion.model == used


async def test_without_a_default_the_router_chooses() -> None:
    router = ScriptedRouter()
    router.generates = completes("")
    await ask(router, "/generate", {"prompt": "x"})
    assert router.asked[0][1].call.completion.model == ""


async def test_sampling_fields_are_typed_and_the_rest_goes_along() -> None:
    router = ScriptedRouter()
    router.generates = completes("")
    typed = {
        "max_tokens": 5,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.1,
        "stop": ["a", "b"],
        "seed": 9007199254740993,
        "n": 1,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "repetition_penalty": 1.1,
        "min_tokens": 1,
        "stop_token_ids": [1, 2],
        "logit_bias": {"7": -100},
    }
    extra = {"guided_regex": "é+", "big": 12345678901234567890123, "nothing": None}
    await ask(router, "/generate", {"prompt": "x"} | typed | extra)
    completion = router.asked[0][1].call.completion
    sampling = completion.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.seed) == (5, 0, 9007199254740993)
    assert (sampling.top_p, sampling.top_k, sampling.min_p, sampling.n) == (0.5, 3, 0.1, 1)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty) == (1, -1, 1.1)
    assert (sampling.min_tokens, list(sampling.stop_token_ids), list(sampling.stop)) == (1, [1, 2], ["a", "b"])
    assert dict(sampling.logit_bias) == {7: -100}
    assert completion.extra_json == '{"guided_regex":"é+","big":12345678901234567890123,"nothing":null}'


async def test_explicit_nulls_mean_the_defaults() -> None:
    router = ScriptedRouter()
    router.generates = completes("")
    nulls = dict.fromkeys(("max_tokens", "temperature", "top_p", "stop", "seed", "logit_bias", "stream", "user"))
    await ask(router, "/generate", {"prompt": "x"} | nulls)
    completion = router.asked[0][1].call.completion
    assert (completion.sampling.max_tokens, completion.sampling.temperature) == (1000, 0.7)
    assert not completion.sampling.HasField("seed")
    assert completion.extra_json == ""


async def test_one_stop_and_a_prompt_of_tokens() -> None:
    router = ScriptedRouter()
    router.generates = completes("")
    await ask(router, "/generate", {"prompt": [1, 2], "stop": "end"})
    completion = router.asked[0][1].call.completion
    assert (list(completion.token_ids.ids), list(completion.sampling.stop)) == ([1, 2], ["end"])


async def test_images_tool_calls_and_thoughts_are_kept() -> None:
    router = ScriptedRouter()
    router.generates = chats("x")
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    messages = [
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "see"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "hm"},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]
    tools = [{"type": "function", "function": {"name": "f"}}]
    await ask(router, "/chat", {"messages": messages, "tools": tools})
    chat = router.asked[0][1].call.chat
    user, assistant, tool = chat.messages
    assert (user.name, user.parts[0].text, user.parts[1].image.detail) == ("ann", "see", IMAGE_DETAIL_LOW)
    assert user.parts[1].image.url == "data:image/png;base64,AA=="
    assert not assistant.HasField("text")
    assert assistant.reasoning == "hm"
    [kept] = assistant.tool_calls
    assert (kept.id, kept.name, kept.arguments_json) == ("c1", "f", "{}")
    assert (tool.role, tool.text, tool.tool_call_id) == (chat_pb2.ROLE_TOOL, "42", "c1")
    assert json.loads(chat.extra_json) == {"tools": tools}


STREAMS = [("/generate", "text", completion_piece), ("/chat", "response", chat_piece)]


@pytest.mark.parametrize(("path", "field", "piece"), STREAMS)
async def test_a_stream_of_pieces(path: str, field: str, piece: Any) -> None:
    router = ScriptedRouter()
    router.streams = emits(piece("a"), piece(""), piece("other", 1), piece("é\n"))
    response = await ask(router, path, {"prompt": "x", "stream": True, "stream_options": {"include_usage": True}})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-lexora-backend"] == "main"
    expected = f'data: {{"{field}":"a"}}\n\ndata: {{"{field}":"é\\n"}}\n\ndata: [DONE]\n\n'
    assert response.text == expected
    [(name, request, _)] = router.asked
    assert name == "stream"
    assert "stream" not in (request.call.chat.extra_json + request.call.completion.extra_json)


@pytest.mark.parametrize(("path", "field", "piece"), STREAMS)
async def test_a_broken_stream_ends_in_an_error(path: str, field: str, piece: Any) -> None:
    router = ScriptedRouter()
    router.streams = emits(piece("a"), then=failure(14, "died", ErrorInfo(reason="UPSTREAM_BROKEN")))
    response = await ask(router, path, {"prompt": "x", "stream": True})
    first, last = response.text.split("\n\n", 1)
    assert json.loads(first.removeprefix("data: ")) == {field: "a"}
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_broken"
    assert "[DONE]" not in response.text


@pytest.mark.parametrize("path", ["/generate", "/chat"])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_the_head(path: str, stream: bool) -> None:
    router = ScriptedRouter()
    own = UpstreamError(status=400, content_type="application/json", body=b'{"error": 1}')
    router.generates = router.streams = failing(failure(3, "x", own))
    response = await ask(router, path, {"prompt": "x", "stream": stream})
    assert (response.status_code, response.content) == (400, b'{"error": 1}')


WRONG = [
    ("/generate", {}, "prompt"),
    ("/generate", {"prompt": None}, "prompt"),
    ("/generate", {"prompt": 1}, "prompt"),
    ("/generate", {"prompt": []}, "prompt"),
    ("/generate", {"prompt": [True]}, "prompt"),
    ("/generate", {"prompt": "x", "model": 1}, "model"),
    ("/generate", {"prompt": "x", "stream": "yes"}, "stream"),
    ("/generate", {"prompt": "x", "user": 1}, "user"),
    ("/generate", {"prompt": "x", "max_tokens": "5"}, "max_tokens"),
    ("/generate", {"prompt": "x", "max_tokens": 1.5}, "max_tokens"),
    ("/generate", {"prompt": "x", "max_tokens": True}, "max_tokens"),
    ("/generate", {"prompt": "x", "max_tokens": 1 << 31}, "max_tokens"),
    ("/generate", {"prompt": "x", "seed": 1 << 63}, "seed"),
    ("/generate", {"prompt": "x", "temperature": "hot"}, "temperature"),
    ("/generate", {"prompt": "x", "temperature": 10**400}, "temperature"),
    ("/generate", b'{"prompt": "x", "temperature": 1e999}', "temperature"),
    ("/generate", {"prompt": "x", "stop": 1}, "stop"),
    ("/generate", {"prompt": "x", "stop": ["a", 1]}, "stop"),
    ("/generate", {"prompt": "x", "stop_token_ids": ["a"]}, "stop_token_ids"),
    ("/generate", {"prompt": "x", "logit_bias": [1]}, "logit_bias"),
    ("/generate", {"prompt": "x", "logit_bias": {"a": 1}}, "logit_bias"),
    ("/generate", {"prompt": "x", "logit_bias": {"1": None}}, "logit_bias"),
    ("/generate", {"prompt": "x", "logit_bias": {str(1 << 40): 1}}, "logit_bias"),
    ("/chat", {}, "messages"),
    ("/chat", {"messages": []}, "messages"),
    ("/chat", {"messages": "hi"}, "messages"),
    ("/chat", {"messages": ["hi"]}, "messages[0]"),
    ("/chat", {"messages": [{"content": "x"}]}, "messages[0].role"),
    ("/chat", {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ("/chat", {"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
    ("/chat", {"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
    ("/chat", {"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
    ("/chat", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ("/chat", {"messages": [{"role": "user", "content": "x", "odd": 1}]}, "messages[0].odd"),
    ("/chat", {"messages": [{"role": "assistant", "tool_calls": [{"type": "x"}]}]}, "messages[0].tool_calls[0].type"),
    ("/chat", {"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function"),
    ("/chat", {"prompt": 1}, "prompt"),
    ("/chat", b"", "body"),
    ("/chat", b"{", "body"),
    ("/chat", b"[]", "body"),
    ("/chat", b'{"prompt": NaN}', "body"),
    ("/chat", b'{"prompt": "\xff"}', "body"),
    ("/chat", b'{"prompt": "\\ud800"}', "body"),
    ("/chat", b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "body"),
    ("/chat", b'{"prompt": ' + b"9" * 5_000 + b"}", "body"),
]


@pytest.mark.parametrize(("path", "body", "param"), WRONG)
async def test_a_wrong_request_is_told_what_is_wrong(path: str, body: Any, param: str) -> None:
    router = ScriptedRouter()
    response = await ask(router, path, body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert not router.asked


async def test_the_short_forms_have_the_same_bounds() -> None:
    router = ScriptedRouter()
    response = await ask(router, "/generate", {"prompt": "x" * 100}, max_body_bytes=50)
    assert response.status_code == 413
    assert not router.asked
