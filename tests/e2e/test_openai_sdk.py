"""The official openai client, unmodified, pointed at the gateway."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam
from pydantic import BaseModel

from tests.e2e.conftest import EMBEDDING_MODEL, MODEL
from tests.support.raw_server import closed_port
from tests.support.servers import Gateway, Simulator

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tell me about foxes."}]
WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Animal(BaseModel):
    name: str
    legs: int


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.http}/v1", api_key="sk-not-for-the-engine", max_retries=0, timeout=10) as client:
        yield client


def fault(text: str) -> dict[str, Any]:
    return {"sim_fault": text}


def test_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=12, seed=1)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer._request_id


def test_streamed_chat_is_the_same_text(client: OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=40, seed=1)
    with client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=40, seed=1, stream=True) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.usage is None for chunk in chunks)


def test_tools(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice="required")
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    assert answer.choices[0].finish_reason == "tool_calls"


def test_streamed_tools(client: OpenAI) -> None:
    name, arguments, reason = "", "", None
    with client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice="required", stream=True
    ) as stream:
        for chunk in stream:
            choice = chunk.choices[0]
            reason = choice.finish_reason or reason
            for piece in choice.delta.tool_calls or []:
                assert piece.function is not None
                name += piece.function.name or ""
                arguments += piece.function.arguments or ""
    assert (name, reason) == ("get_weather", "tool_calls")
    assert isinstance(json.loads(arguments)["city"], str)


def test_json_schema_parsed_into_a_model(client: OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Animal)
    assert isinstance(answer.choices[0].message.parsed, Animal)


def test_responses_are_parsed_into_a_model(client: OpenAI) -> None:
    answer = client.responses.parse(model=MODEL, input="Tell me about foxes.", text_format=Animal)
    assert isinstance(answer.output_parsed, Animal)
    with client.responses.stream(model=MODEL, input="Tell me about foxes.", text_format=Animal) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Animal)


def test_a_json_object_follows_the_schema_in_the_prompt(client: OpenAI) -> None:
    schema = json.dumps(Animal.model_json_schema(), indent=2)
    # As instructor's JSON mode writes it.
    system = f"Provide the parsed objects in json that match the following json_schema:\n\n{schema}\n\nReturn an instance."
    messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": system}, *HELLO]
    answer = client.chat.completions.create(model=MODEL, messages=messages, response_format={"type": "json_object"})
    Animal.model_validate_json(answer.choices[0].message.content or "")


def test_streamed_json_schema(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=HELLO, response_format=Animal) as stream:
        stream.until_done()
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Animal)


def test_logprobs(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=5, logprobs=True, top_logprobs=3)
    assert answer.choices[0].logprobs is not None
    entries = answer.choices[0].logprobs.content or []
    assert len(entries) == 5
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 3 for entry in entries)


def test_two_choices(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=5, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    with client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=5, n=2, stream=True) as stream:
        assert {choice.index for chunk in stream for choice in chunk.choices} == {0, 1}


def test_embeddings_travel_as_base64_and_arrive_as_numbers(client: OpenAI, sim: Simulator) -> None:
    answer = client.embeddings.create(model=EMBEDDING_MODEL, input=["one", "two"])
    assert json.loads(sim.posts()[-1]["body"])["encoding_format"] == "base64"
    assert [entry.index for entry in answer.data] == [0, 1]
    floats = client.embeddings.create(model=EMBEDDING_MODEL, input=["one", "two"], encoding_format="float")
    for packed, plain in zip(answer.data, floats.data, strict=True):
        assert packed.embedding == pytest.approx(plain.embedding, abs=1e-6)


def test_models(client: OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert set(models) == {MODEL, EMBEDDING_MODEL}
    assert client.models.retrieve(MODEL).to_dict()["backend"] == "main"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("no-such-model")
    assert error.value.code == "model_not_found"


def test_responses(client: OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="Tell me about foxes.", max_output_tokens=8)
    assert answer.output_text
    with client.responses.create(model=MODEL, input="Tell me.", max_output_tokens=8, stream=True) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")


def test_completions(client: OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=8, seed=1)
    with client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=8, seed=1, stream=True) as stream:
        text = "".join(chunk.choices[0].text for chunk in stream)
    assert answer.choices[0].text == text != ""


# -- errors


STATUS_ERRORS = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (409, openai.ConflictError),
    (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (502, openai.InternalServerError),
    (503, openai.InternalServerError),
    (504, openai.InternalServerError),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "kind"), STATUS_ERRORS)
def test_an_error_of_the_engine_raises_the_sdks_class(
    client: OpenAI, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    asked = fault(f"status;code={status};retry_after=3")
    with pytest.raises(kind) as error:
        client.chat.completions.create(model=MODEL, messages=HELLO, extra_body=asked, stream=stream)
    assert error.value.status_code == status
    assert error.value.response.headers["retry-after"] == "3"
    assert error.value.body == {
        "message": f"simulated status {status}",
        "type": "SimulatedError",
        "param": None,
        "code": status,
    }
    assert error.value.request_id


def test_a_bad_request_names_its_field(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens="many")  # type: ignore[call-overload]  # on purpose
    assert error.value.param == "max_tokens"


def test_an_unreadable_answer_is_502(client: OpenAI) -> None:
    for kind in ("html", "invalid_json", "empty", "reset"):
        with pytest.raises(openai.InternalServerError) as error:
            client.chat.completions.create(model=MODEL, messages=HELLO, extra_body=fault(kind))
        assert error.value.status_code == 502


def test_the_clients_own_timeout(client: OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model=MODEL, messages=HELLO, timeout=0.2, extra_body=fault("hang"))


def test_no_gateway() -> None:
    with (
        OpenAI(base_url=f"http://127.0.0.1:{closed_port()}/v1", api_key="-", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.chat.completions.create(model=MODEL, messages=HELLO)


@pytest.mark.parametrize("how", ["rst", "fin", "error", "abort", "eof"])
def test_an_engine_that_dies_in_mid_stream_raises(client: OpenAI, how: str) -> None:
    asked = fault(f"die_after=12;how={how}")
    seen: list[Any] = []
    with client.chat.completions.create(model=MODEL, messages=HELLO, extra_body=asked, stream=True) as stream:
        chunks = iter(stream)
        with pytest.raises(openai.APIError) as error:
            seen.extend(chunks)
    assert len(seen) >= 3
    assert not isinstance(error.value, openai.APIConnectionError)
    assert error.value.message
