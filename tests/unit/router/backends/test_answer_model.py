import pytest

from lexora_router.backends.answer_model import name_in, name_in_events

BEFORE_AND_AFTER = {
    "whole": (
        b'{"id":"1" , "model" : "eng","n":9007199254740993}',
        b'{"id":"1" , "model" : "asked","n":9007199254740993}',
    ),
    "first": (b'{"model":"eng"}', b'{"model":"asked"}'),
    "a path with escapes": (rb'{"model":"\/models\/e\"ng"}', b'{"model":"asked"}'),
    "behind content that says it": (
        rb'{"choices":[{"message":{"content":"{\"model\":\"eng\"}"}}],"model":"eng"}',
        rb'{"choices":[{"message":{"content":"{\"model\":\"eng\"}"}}],"model":"asked"}',
    ),
    "behind fields of other objects": (
        b'{"metadata":{"model":"eng"},"tools":[{"model":"eng"}],"model":"eng"}',
        b'{"metadata":{"model":"eng"},"tools":[{"model":"eng"}],"model":"asked"}',
    ),
    "the last of two counts": (b'{"model":"a","model":"eng"}', b'{"model":"a","model":"asked"}'),
    "of a response": (
        b'{"response":{"tools":[{"model":"x"}],"model":"eng"},"type":"response.created"}',
        b'{"response":{"tools":[{"model":"x"}],"model":"asked"},"type":"response.created"}',
    ),
    "of a message": (
        b'{"type":"message_start","message":{"content":[],"model":"eng"}}',
        b'{"type":"message_start","message":{"content":[],"model":"asked"}}',
    ),
    "beside NaN": (b'{"logprobs":NaN,"model":"eng"}', b'{"logprobs":NaN,"model":"asked"}'),
}
UNTOUCHED = [
    b"",
    b"[1]",
    b'{"model":null}',
    b'{"model":{"name":"eng"}}',
    b'{"model":"asked","tools":[{"model":"eng"}]}',
    b'{"metadata":{"model":"eng"}}',
    b'{"choices":[{"message":{"model":"eng"}}]}',
    b'{"message":"a text","x":{"model":"eng"}}',
    rb'{"text":"\"model\":\"eng\""}',
    b'{"model":"eng"',
    b'plain text with "model":"eng"',
    b"{" + b'"x":{"model":"y"},' * 20 + b'"model":"eng"}',  # beyond the bound
]


@pytest.mark.parametrize("case", BEFORE_AND_AFTER)
def test_only_the_answer_s_own_model_changes(case: str) -> None:
    before, after = BEFORE_AND_AFTER[case]
    assert name_in(before, "asked") == after


@pytest.mark.parametrize("body", UNTOUCHED)
def test_all_else_is_untouched(body: bytes) -> None:
    assert name_in(body, "asked") == body


def test_a_name_is_written_as_json() -> None:
    assert name_in(b'{"model":"eng"}', 'a"\n犬') == '{"model":"a\\"\\n犬"}'.encode()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_each_event_is_named(end: bytes) -> None:
    def events(model: bytes) -> bytes:
        lines = [
            b": model",
            b"",
            b"event: x",
            b'data: {"model":"%b"}' % model,
            b"",
            b'data:{"model":"%b","a":1}' % model,
            b"",
            b"",
        ]
        return end.join([*lines, b"data: [DONE]", b"", b""])

    assert name_in_events(events(b"eng"), "asked") == events(b"asked")
    assert name_in_events(b'data: {"choices":[]}\n\n', "asked") == b'data: {"choices":[]}\n\n'
