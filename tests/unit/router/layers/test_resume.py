import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.router.resume.engine import (
    BROKEN,
    CHAT,
    COMPLETIONS,
    HEAD,
    Death,
    FakeLease,
    Fleet,
    Model,
    chunks,
    ids_of,
    text_of,
)
from tests.unit.router.support import Client, Frames, give, make_call, make_target

from lexora_contract.answer import Reply
from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.errors import (
    DeadlineExceeded,
    NoHealthyEndpoint,
    RouterError,
    UpstreamBroken,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from lexora_router.layers.resume import Resume
from lexora_router.resume.eligibility import ResumeSource

IDS = ResumeSource(ids=True, text=False, endpoints=lambda: 3)
TEXT = ResumeSource(ids=True, text=True, endpoints=lambda: 3)
DONE = b"data: [DONE]\n\n"
CHAT_BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "日本語 hello"}], "max_tokens": 40, "seed": 682}
COMPLETION_BODY: dict[str, Any] = {"prompt": "once upon a time", "max_tokens": 40, "seed": 100}
BODIES = {CHAT: CHAT_BODY, COMPLETIONS: COMPLETION_BODY}


def stream_call(path: str, changes: dict[str, Any] | None = None, *, names: str = "abc", **fields: Any) -> Call:
    body = {"model": "m", "stream": True, **BODIES[path], **(changes or {})}
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    encoded = json.dumps(body, ensure_ascii=False).encode()
    return make_call(path=path, body=encoded, include_usage=usage, target=make_target(), lease=FakeLease(names), **fields)


async def run(call: Call, fleet: Fleet, source: ResumeSource = IDS) -> Client:
    client = Client()
    await Resume(fleet, sources={"main": source})(call, client)
    return client


async def undisturbed(call: Call, model: Model | None = None) -> bytes:
    """What the first engine sends when nobody asks it for token ids and nothing happens."""
    fleet = Fleet(model=model or Model())
    client = Client()
    call.lease = FakeLease("abc")
    await fleet(call, client)
    return client.data


def dying(*cuts: int, error: RouterError = BROKEN) -> list[Death | None]:
    return [(cut, error) for cut in cuts]


async def same(path: str, changes: dict[str, Any], cuts: Iterable[int], model: Model, per_frame: int = 1) -> Call:
    """Check that a stream cut so often says what an undisturbed one says; the call that was made."""
    whole = await undisturbed(stream_call(path, changes), model)
    call = stream_call(path, changes)
    fleet = Fleet(dying(*cuts), model, per_frame)
    client = await run(call, fleet)
    assert text_of(client.data) == text_of(whole)
    assert client.data.endswith(DONE)
    assert client.data.count(DONE) == 1
    ends = [
        (choice["finish_reason"], choice["stop_reason"])
        for chunk in chunks(client.data)
        for choice in chunk["choices"]
        if choice["finish_reason"]
    ]
    assert ends == [
        (choice["finish_reason"], choice["stop_reason"])
        for chunk in chunks(whole)
        for choice in chunk["choices"]
        if choice["finish_reason"]
    ]
    counts = [chunk["usage"] for chunk in chunks(client.data) if not chunk["choices"]]
    assert counts == [chunk["usage"] for chunk in chunks(whole) if not chunk["choices"]]
    return call


async def length(path: str, changes: dict[str, Any], model: Model) -> int:
    """Events of a stream with ids."""
    fleet = Fleet(model=model)
    client = Client()
    await fleet(stream_call(path, {**changes, "return_token_ids": True}), client)
    return client.data.count(b"data:")


USAGE = {"stream_options": {"include_usage": True}}
CONTINUOUS = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
WANTS = [
    pytest.param({}, Model(), id="plain"),
    pytest.param(USAGE, Model(), id="usage"),
    pytest.param(CONTINUOUS, Model(), id="continuous usage"),
    pytest.param({"max_tokens": 90}, Model(natural=20), id="natural end"),
    pytest.param({"max_tokens": 90, "min_tokens": 50}, Model(natural=20), id="min_tokens"),
    pytest.param({"max_tokens": 60, "stop": ["の", "never there"]}, Model(), id="stop strings"),
    pytest.param({"stop": "の", "temperature": 0}, Model(sizes=(1, 3)), id="stop string in coalesced tokens"),
    pytest.param({"temperature": 0.0}, Model(sizes=(1, 2, 1, 1, 3)), id="some coalesced tokens"),
    pytest.param({}, Model(sizes=(4,), blunt=False), id="coalesced tokens"),
]


@pytest.mark.parametrize(("changes", "model"), WANTS)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_stream_cut_anywhere_says_what_an_undisturbed_one_says(
    path: str, changes: dict[str, Any], model: Model
) -> None:
    events = await length(path, changes, model)
    for cut in range(1, events):
        call = await same(path, changes, [cut], model)
        assert call.receipt.resumed == "token_ids"
        assert call.receipt.attempts in (1, 2)
        whole = stream_call(path, changes)
        await undisturbed(whole, model)
        assert call.receipt.usage == whole.receipt.usage


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_the_text_of_the_test_is_hard(path: str) -> None:
    client = Client()
    await Fleet()(stream_call(path, {"return_token_ids": True}), client)
    silent = [
        c
        for c in chunks(client.data)
        for o in c["choices"]
        if o.get("token_ids") and text_of(b"data: %b\n\n" % json.dumps(c).encode()) == ""
    ]
    assert len(silent) >= 8
    assert not text_of(client.data).isascii()


@given(data=st.data())
async def test_random_cuts_of_random_streams(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([CHAT, COMPLETIONS]))
    stops = data.draw(st.lists(st.sampled_from(["the", "a", "す", "。 ", "er, "]), max_size=3))
    changes: dict[str, Any] = {
        "seed": data.draw(st.integers(0, 10**6)),
        "max_tokens": data.draw(st.integers(1, 60)),
        "temperature": 0,
        **data.draw(st.sampled_from([{}, USAGE, CONTINUOUS])),
    }
    if stops:
        changes["stop"] = stops
    changes["min_tokens"] = data.draw(st.integers(0, changes["max_tokens"]))
    # Among single tokens there is always a point to go on from; where all are coalesced a character may be cut.
    sizes = [*data.draw(st.lists(st.integers(1, 4), max_size=3)), *data.draw(st.sampled_from([[1], [2]]))]
    model = Model(natural=data.draw(st.integers(5, 80)), sizes=sizes, blunt=1 in sizes)
    cuts = data.draw(st.lists(st.integers(1, 70), min_size=1, max_size=2))
    await same(path, changes, cuts, model, data.draw(st.integers(1, 5)))


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_second_death_is_survived_as_well(path: str) -> None:
    for first in range(1, 25, 3):
        for second in range(1, 15, 2):
            call = await same(path, USAGE, [first, second], Model())
            assert call.receipt.attempts == 3
            assert call.receipt.endpoint == "c"


async def test_two_deaths_within_a_held_back_stop_string() -> None:
    for first in range(2, 20):
        for second in range(1, 8):
            await same(CHAT, {"stop": ["nowhere to be found"]}, [first, second], Model())


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_nothing_shows_that_ids_were_asked_for(path: str) -> None:
    for changes in (
        {},
        USAGE,
        CONTINUOUS,
        {"return_token_ids": False},
        {"return_token_ids": None},
        {"max_tokens": 60, "stop": "の"},
    ):
        for per_frame in (1, 7):
            fleet = Fleet(per_frame=per_frame)
            call = stream_call(path, changes)
            client = await run(call, fleet)
            assert client.data == await undisturbed(stream_call(path, changes))
            assert fleet.bodies[0]["return_token_ids"] is True
            assert call.receipt.resumed == ""


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_the_rest_of_the_request_keeps_its_bytes(path: str) -> None:
    call = stream_call(path, {"seed": 9007199254740993, "unknown": None})
    fleet = Fleet()
    await run(call, fleet)
    assert fleet.calls[0].body == call.body.replace(b"{", b'{"return_token_ids":true,', 1)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_client_that_asks_for_ids_keeps_them(path: str) -> None:
    changes = {"return_token_ids": True}
    whole = await undisturbed(stream_call(path, changes))
    assert (await run(stream_call(path, changes), Fleet())).data == whole
    for cut in range(1, whole.count(b"data:")):
        call = stream_call(path, changes)
        client = await run(call, Fleet(dying(cut)))
        assert ids_of(client.data) == ids_of(whole)
        assert text_of(client.data) == text_of(whole)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_the_second_engine_speaks_in_the_first_ones_shape(path: str) -> None:
    client = await run(stream_call(path, USAGE), Fleet(dying(9)))
    whole = await undisturbed(stream_call(path, USAGE))
    assert client.data.replace(b'"fp-b"', b'"fp-a"') == whole


async def test_what_the_second_engine_is_asked() -> None:
    changes = {"temperature": 0.5, "stop_token_ids": [9], "min_tokens": 12, "top_logprobs": 0, "truncate_prompt_tokens": 99}
    fleet = Fleet(dying(9))
    call = stream_call(CHAT, changes, priority=50)
    await run(call, fleet)
    second = fleet.calls[1]
    body = fleet.bodies[1]
    kept = len(body.pop("prompt")) - len(_prompt_ids(call))
    assert kept >= 7
    assert second.path == COMPLETIONS
    assert body == {
        "model": "m",
        "stream": True,
        "temperature": 0.5,
        "stop_token_ids": [9],
        "seed": 682,
        "max_tokens": 40 - kept,
        "min_tokens": 12 - kept,
        "return_token_ids": True,
    }
    assert (second.priority, second.target, second.lease, second.id) == (50, call.target, call.lease, call.id)
    assert call.receipt.lost_tokens == 8 - kept


def _prompt_ids(call: Call) -> list[int]:
    found = Model().answer(call.path, json.loads(call.body) | {"return_token_ids": True})
    return list(json.loads(found[0][6:])["prompt_token_ids"])


@pytest.mark.parametrize(
    ("path", "changes", "asked"),
    [
        (CHAT, {"max_tokens": None}, None),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": 30}, 30),
        (COMPLETIONS, {"max_tokens": None}, None),
    ],
)
async def test_the_limit_that_is_left(path: str, changes: dict[str, Any], asked: int | None) -> None:
    fleet = Fleet(dying(9))
    client = Client()
    # An engine reads null as all the room there is; these engines have a default of their own.
    await Resume(fleet, sources={"main": IDS})(stream_call(path, changes), client)
    limit = fleet.bodies[1]["max_tokens"]
    assert "max_completion_tokens" not in fleet.bodies[1]
    assert (limit is None) if asked is None else (asked - 9 <= limit < asked)


async def test_a_completion_without_a_limit_ends_after_sixteen_tokens() -> None:
    body = {key: value for key, value in COMPLETION_BODY.items() if key != "max_tokens"} | {"model": "m", "stream": True}
    for cut in range(1, 15):
        call = make_call(path=COMPLETIONS, body=json.dumps(body).encode(), target=make_target(), lease=FakeLease("ab"))
        client = await run(call, Fleet(dying(cut)))
        assert text_of(client.data) == text_of(await undisturbed(call))


# -- where the error stands


async def fails(call: Call, fleet: Fleet, source: ResumeSource = IDS) -> tuple[RouterError, bytes]:
    client = Client()
    with pytest.raises(RouterError) as caught:
        await Resume(fleet, sources={"main": source})(call, client)
    assert DONE not in client.data
    assert call.receipt.usage is None
    return caught.value, client.data


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "none"},
        {"response_format": {"type": "json_object"}},
        {"guided_regex": "a*"},
        {"structured_outputs": {"choice": ["a"]}},
        {"n": 2},
        {"logprobs": True},
        {"logprobs": 0},
        {"top_logprobs": 2},
        {"echo": True},
        {"suffix": "x"},
        {"best_of": 2},
        {"prompt_logprobs": 0},
        {"stop": ["x"], "include_stop_str_in_output": True},
        {"stop": "x" * 5000},
        {"stop": {"not": "ours to judge"}},
        {"kv_transfer_params": {}},
    ],
    ids=str,
)
async def test_other_calls_are_not_touched(path: str, fields: dict[str, Any]) -> None:
    call = stream_call(path, fields)
    seen: list[Call] = []

    async def inner(call: Call, sink: Sink) -> None:
        seen.append(call)
        give(call, sink, HEAD)
        give(call, sink, Frames(b'data: {"token_ids":[1]}\n\n'))
        raise BROKEN

    client = Client()
    with pytest.raises(UpstreamBroken) as caught:
        await Resume(inner, sources={"main": TEXT})(call, client)
    assert caught.value is BROKEN
    assert seen == [call]
    assert seen[0] is call
    assert client.events == [HEAD, Frames(b'data: {"token_ids":[1]}\n\n')]


@pytest.mark.parametrize(
    "changes",
    [
        {"resume_allowed": False},
        {"stream": False},
        {"path": "/v1/responses"},
        {"target": make_target(backend="single")},
        {"body": b'{"prompt":["a","b"],"stream":true}', "path": COMPLETIONS},
        {"body": b'{"prompt":[[1,2],[3]],"stream":true}', "path": COMPLETIONS},
    ],
    ids=str,
)
async def test_nor_are_calls_that_cannot_or_must_not_be_continued(changes: dict[str, Any]) -> None:
    call = stream_call(CHAT)
    for name, value in changes.items():
        setattr(call, name, value)
    seen: list[Call] = []

    async def inner(call: Call, sink: Sink) -> None:
        seen.append(call)
        raise BROKEN

    with pytest.raises(UpstreamBroken):
        await Resume(inner, sources={"main": IDS})(call, Client())
    assert seen[0] is call
    assert len(seen) == 1


async def test_a_prompt_of_token_ids_is_one_prompt() -> None:
    await same(COMPLETIONS, {"prompt": [300, 301, 302]}, [7], Model())


async def test_no_other_endpoint() -> None:
    error, data = await fails(stream_call(CHAT, names="a"), Fleet(dying(9)))
    assert error is BROKEN
    assert text_of(data)


async def test_every_endpoint_dies() -> None:
    last = UpstreamBroken("the third one")
    call = stream_call(CHAT)
    error, data = await fails(call, Fleet([(9, BROKEN), (3, BROKEN), (2, last)]))
    assert error is last
    assert (call.receipt.attempts, call.receipt.resumed) == (3, "token_ids")
    assert text_of(await undisturbed(stream_call(CHAT))).startswith(text_of(data))


async def test_not_more_often_than_the_pool_has_endpoints() -> None:
    call = stream_call(CHAT, names="abcdefgh")
    await fails(call, Fleet(dying(*[3] * 8)))
    assert call.receipt.attempts == 1 + 3


@pytest.mark.parametrize("error", [UpstreamTimeout("x", "total"), DeadlineExceeded("x"), UpstreamRefused(400, "", b"")])
async def test_what_is_not_the_engines_death(error: RouterError) -> None:
    call = stream_call(CHAT)
    assert (await fails(call, Fleet([(9, error)])))[0] is error
    assert call.receipt.attempts == 1


@pytest.mark.parametrize("error", [BROKEN, UpstreamTimeout("x", "idle"), UpstreamInvalid("x"), UpstreamUnreachable("x")])
async def test_every_death_is_one(error: RouterError) -> None:
    fleet = Fleet([(9, error)])
    call = stream_call(CHAT)
    call.elsewhere = True
    assert (await run(call, fleet)).data.endswith(DONE)
    assert [each.elsewhere for each in fleet.calls] == [True, False], "what has begun goes on here or nowhere"


@pytest.mark.parametrize(
    "error", [UpstreamUnreachable("x"), UpstreamTimeout("x", "first token"), UpstreamRefused(503, "", b"")]
)
async def test_before_the_first_byte_it_is_a_matter_of_retries(error: RouterError) -> None:
    fleet = Fleet([(0, error)])
    assert (await fails(stream_call(CHAT), fleet))[0] is error
    assert len(fleet.calls) == 1


@pytest.mark.parametrize(
    "error", [UpstreamUnreachable("x"), UpstreamTimeout("x", "first token"), UpstreamRefused(503, "", b"")]
)
async def test_a_continuation_that_does_not_begin_is_tried_elsewhere(error: RouterError) -> None:
    call = stream_call(CHAT, USAGE)
    client = await run(call, Fleet([(9, BROKEN), (0, error)]))
    assert text_of(client.data) == text_of(await undisturbed(stream_call(CHAT, USAGE)))
    assert call.receipt.attempts == 3


@pytest.mark.parametrize("error", [UpstreamRefused(400, "", b""), NoHealthyEndpoint("x")])
async def test_a_continuation_that_is_refused_leaves_the_first_error(error: RouterError) -> None:
    call = stream_call(CHAT)
    assert (await fails(call, Fleet([(9, BROKEN), (0, error)])))[0] is BROKEN
    assert call.receipt.resumed == ""


async def test_without_ids_the_error_stands() -> None:
    error, _ = await fails(stream_call(CHAT), Fleet(dying(9), Model(gives_ids=False)))
    assert error is BROKEN


async def test_an_answer_that_died_among_its_thoughts_is_not_continued() -> None:
    assert (await fails(stream_call(CHAT), Fleet(dying(9), Model(reasoning=12))))[0] is BROKEN


async def test_an_answer_that_died_after_its_thoughts_is() -> None:
    model = Model(reasoning=4)
    for cut in range(10, 30):
        await same(CHAT, {}, [cut], model)


async def test_an_image_has_no_token_ids() -> None:
    content = [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    messages = {"messages": [{"role": "user", "content": content}]}
    fleet = Fleet(dying(9))
    assert (await fails(stream_call(CHAT, messages), fleet))[0] is BROKEN
    assert "return_token_ids" not in fleet.bodies[0]
    call = stream_call(CHAT, {**messages, "return_token_ids": True})
    await run(call, Fleet(dying(9)), TEXT)
    assert call.receipt.resumed == "text"
    parts = {"messages": [{"role": "user", "content": content[:1]}]}
    await same(CHAT, parts, [9], Model())


# -- by text


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_without_ids_the_text_is_continued_when_that_is_wanted(path: str) -> None:
    for cut in range(2, 20):
        call, fleet = stream_call(path, USAGE), Fleet(dying(cut), Model(gives_ids=False))
        client = await run(call, fleet, TEXT)
        body = fleet.bodies[1]
        begun = text_of(client.data)[: len(body["prompt"]) - len("once upon a time")] if path == COMPLETIONS else ""
        if path == COMPLETIONS:
            assert body["prompt"] == "once upon a time" + begun
        else:
            begun = body["messages"][1]["content"]
            assert body["messages"] == [*CHAT_BODY["messages"], {"role": "assistant", "content": begun}]
            assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
        assert begun
        assert text_of(client.data).startswith(begun)
        assert fleet.calls[1].path == path
        assert call.receipt.resumed == "text"
        assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks(client.data)}) == 1
        roles = [choice["delta"].get("role") for chunk in chunks(client.data) for choice in chunk["choices"] if path == CHAT]
        assert sum(role is not None for role in roles) == (path == CHAT)
        usage = chunks(client.data)[-1]["usage"]
        assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
        assert call.receipt.usage is not None
        assert call.receipt.usage.output_tokens == usage["completion_tokens"]
        assert body["max_tokens"] == 40 - cut + (path == CHAT)


async def test_ids_come_before_text() -> None:
    call = stream_call(CHAT)
    await run(call, Fleet(dying(9)), TEXT)
    assert call.receipt.resumed == "token_ids"


async def test_a_message_that_the_client_continues_itself_is_not_continued_by_text() -> None:
    changes = {"continue_final_message": True, "add_generation_prompt": False}
    assert (await fails(stream_call(CHAT, changes), Fleet(dying(9), Model(gives_ids=False)), TEXT))[0] is BROKEN
    await same(CHAT, changes, [9], Model())


# -- odd engines


async def test_an_event_that_is_no_json_is_a_death() -> None:
    seen: list[Call] = []
    fleet = Fleet()

    async def inner(call: Call, sink: Sink) -> None:
        seen.append(call)
        if len(seen) > 1:
            await fleet(call, sink)
            return
        found = Model().answer(CHAT, json.loads(call.body))
        give(call, sink, HEAD)
        give(call, sink, Frames(found[0] + found[1]))
        give(call, sink, Frames(found[2][:40] + b"\n\n"))

    client = Client()
    await Resume(inner, sources={"main": IDS})(stream_call(CHAT), client)
    assert text_of(client.data) == text_of(await undisturbed(stream_call(CHAT)))


@pytest.mark.parametrize("dies", [1, 2])
async def test_what_came_in_one_piece_with_a_broken_event_is_not_lost(dies: int) -> None:
    fleet = Fleet()
    seen: list[Call] = []

    async def inner(call: Call, sink: Sink) -> None:
        seen.append(call)
        if len(seen) > dies:
            await fleet(call, sink)
            return
        found = Model().answer(call.path, json.loads(call.body))
        give(call, sink, HEAD)
        give(call, sink, Frames(b"".join(found[:4]) + found[4][:40] + b"\n\n"))

    client = Client()
    await Resume(inner, sources={"main": IDS})(stream_call(CHAT), client)
    assert text_of(client.data) == text_of(await undisturbed(stream_call(CHAT)))


async def test_a_whole_answer_passes_but_is_no_continuation() -> None:
    reply = Reply(HEAD, b"{}")
    seen: list[Call] = []

    async def inner(call: Call, sink: Sink) -> None:
        seen.append(call)
        give(call, sink, reply)

    client = Client()
    await Resume(inner, sources={"main": IDS})(stream_call(CHAT), client)
    assert client.events == [reply]

    async def turncoat(call: Call, sink: Sink) -> None:
        await (inner if call.path == COMPLETIONS else Fleet(dying(9)))(call, sink)

    with pytest.raises(UpstreamBroken):
        await Resume(turncoat, sources={"main": IDS})(stream_call(CHAT), Client())


async def test_events_of_another_shape_pass_and_end_the_chance() -> None:
    odd = b'data: {"choices":[{"index":"one"}]}\n\n'

    async def inner(call: Call, sink: Sink) -> None:
        give(call, sink, HEAD)
        give(call, sink, Frames(odd))
        raise BROKEN

    client = Client()
    with pytest.raises(UpstreamBroken):
        await Resume(inner, sources={"main": IDS})(stream_call(CHAT), client)
    assert client.data == odd


async def test_comments_and_carriage_returns_pass() -> None:
    block = (
        b': hello\r\n\r\ndata: {"choices":[{"index":0,"delta":{"content":"a"},"token_ids":[1]}]}\r\n\r\ndata: [DONE]\r\n\r\n'
    )

    async def inner(call: Call, sink: Sink) -> None:
        give(call, sink, HEAD)
        give(call, sink, Frames(block))

    client = Client()
    await Resume(inner, sources={"main": IDS})(stream_call(CHAT), client)
    assert client.data == block.replace(b"[1]", b"null")


async def test_a_failure_after_the_end_mark_ends_nothing_twice() -> None:
    error = UpstreamBroken("something behind the end mark")

    async def inner(call: Call, sink: Sink) -> None:
        await Fleet()(call, sink)
        raise error

    client = Client()
    with pytest.raises(UpstreamBroken) as caught:
        await Resume(inner, sources={"main": IDS})(stream_call(CHAT), client)
    assert caught.value is error
    assert client.data.count(DONE) == 1


async def test_a_stream_of_which_the_client_has_seen_nothing_can_still_go_elsewhere() -> None:
    silent = b'data: {"choices":[{"index":0,"text":"","prompt_token_ids":[300],"token_ids":[4096]}]}\n\n'

    async def inner(call: Call, sink: Sink) -> None:
        give(call, sink, HEAD)
        give(call, sink, Frames(silent))
        raise BROKEN

    client = Client()
    call = stream_call(COMPLETIONS)
    call.lease = None
    with pytest.raises(UpstreamBroken):
        await Resume(inner, sources={"main": IDS})(call, client)
    assert client.events == []
    again = await run(stream_call(COMPLETIONS, USAGE), Fleet(dying(1)))
    assert text_of(again.data) == text_of(await undisturbed(stream_call(COMPLETIONS)))
