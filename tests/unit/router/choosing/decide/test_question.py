import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lexora_router.choosing.decide.question import guided, plain

KINDS = ["code", "翻訳"]


def asked(body: bytes) -> Any:
    return json.loads(body)


def test_the_answer_is_one_of_the_kinds_by_schema() -> None:
    body = asked(guided("m", "a task", KINDS, switches_thinking=True))
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["task_type"]["enum"] == ["code", "翻訳", "unknown"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 200)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "stream" not in body
    assert "chat_template_kwargs" not in asked(guided("m", "a task", KINDS, switches_thinking=False))


def test_without_what_engines_refuse() -> None:
    assert set(asked(plain("m", "a task", KINDS))) == {"model", "messages", "max_completion_tokens"}


@given(st.text())
def test_a_task_stays_one_string_whatever_it_says(task: str) -> None:
    system, user = asked(guided("m", task, KINDS, switches_thinking=True))["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert json.loads(user["content"]) == task
    assert "翻訳" in system["content"]
    assert len(task) < 3 or task not in system["content"] or task.isprintable()
