"""Texts of regular expressions and of grammars."""

from __future__ import annotations

import re

import pytest

from lexora_sim import Simulator
from lexora_sim.text.pattern import text_of
from lexora_sim.text.pattern_reader import grammar, regex
from tests.unit.sim.helpers import chat, complete


@pytest.mark.parametrize(
    "expression",
    [
        r"[0-9]{3}-\d{4}",
        r"(yes|no)!?",
        r"^\w+@[a-z]+\.(com|org)$",
        r"[^a-z\d]+",
        r"a{2,}b*?(?:cd){0,2}|\S\W",
        r"\x41\u00e9\t[\n\-x-z].",
        r"[]a-]x",
        "",
    ],
)
def test_a_text_matches_its_expression(expression: str) -> None:
    texts = [text_of(regex(expression), {}, seed) for seed in range(100)]
    assert all(re.fullmatch(expression, text) for text in texts)
    assert texts == [text_of(regex(expression), {}, seed) for seed in range(100)]
    assert len(set(texts)) > 1 or not expression


SUMS = r"""
# a list of sums
root ::= sum ("; " sum)*
sum  ::= term (" + " term)*   # a comment; "not a text"
term ::= [0-9]{1,3} | "(" sum ")" | "\"\x41\n#\""
"""


def test_a_text_follows_its_grammar_and_has_an_end() -> None:
    for seed in range(50):
        text = text_of(*grammar(SUMS), seed)
        while text != (text := re.sub(r'\((\d+|"A\n#")( \+ (\d+|"A\n#"))*\)', "1", text)):
            pass  # sums in parentheses, from the inside
        assert re.fullmatch(r'((; |^)(\d+|"A\n#")( \+ (\d+|"A\n#"))*)+', text), text


@pytest.mark.parametrize(
    "wrong", ["a(", "a)", "*a", "[", "[^ -~]", "[z-a]", "(?=a)", "\\", r"\b", "a{3,1}", "(" * 200, "(a*){9999}{9999}"]
)
def test_what_is_no_expression_or_has_no_bounded_text(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        text_of(regex(wrong), {}, 1)


@pytest.mark.parametrize(
    "wrong",
    ["", 'x ::= "a"', "root ::= other", "root ::= root", "root ::= ~", 'root ::= "a', "root ::= (root root | root)*{2}"],
)
def test_what_is_no_grammar_or_has_no_text_with_an_end(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        text_of(*grammar(wrong), 1)


@pytest.mark.parametrize("asked", [{"structured_outputs": {"regex": "[ab]{4}"}}, {"guided_regex": "[ab]{4}"}])
async def test_answers_follow_it(sim: Simulator, asked: dict[str, object]) -> None:
    whole = (await chat(sim, **asked)).json()["choices"][0]
    assert re.fullmatch("[ab]{4}", whole["message"]["content"])
    assert whole["finish_reason"] == "stop"
    assert (await chat(sim, stream=True, **asked)).text() == whole["message"]["content"]
    assert re.fullmatch("[ab]{4}", (await complete(sim, "x", **asked)).json()["choices"][0]["text"])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"regex": "("}, "Invalid regex: it ends too early"),
        ({"grammar": "root ::= other"}, "Invalid grammar: the grammar has no rule other"),
        ({"regex": 7}, "Invalid regex in structured_outputs."),
        ({"regex": "a", "choice": ["a"]}, "You can only use one kind of structured outputs constraint"),
    ],
)
async def test_what_it_cannot_follow_is_400(sim: Simulator, asked: dict[str, object], words: str) -> None:
    answer = await chat(sim, structured_outputs=asked)
    assert answer.status == 400
    assert words in answer.json()["error"]["message"]


async def test_log_probabilities_of_the_prompt(sim: Simulator) -> None:
    body = (await chat(sim, max_tokens=1, prompt_logprobs=2, return_token_ids=True)).json()
    first, *rows = body["prompt_logprobs"]
    assert (first, len(rows) + 1) == (None, body["usage"]["prompt_tokens"])
    for token, row in zip(body["prompt_token_ids"][1:], rows, strict=True):
        assert next(iter(row)) == str(token)
        assert [reading["rank"] for reading in row.values()] == [1, 2]
        assert all(list(reading) == ["logprob", "rank", "decoded_token"] for reading in row.values())
    assert len((await complete(sim, [20, 21], max_tokens=1, prompt_logprobs=0)).json()["choices"][0]["prompt_logprobs"][1]) == 1
    for wrong in ({"prompt_logprobs": -1}, {"prompt_logprobs": 21}, {"prompt_logprobs": 1, "stream": True}):
        assert (await chat(sim, **wrong)).json()["error"]["param"] == "prompt_logprobs"
