from dataclasses import replace

import pytest
from tests.unit.router.support import HEAD, Client, Frames, Scripted, give, make_call

from lexora_contract.answer import Reply
from lexora_contract.operations import RESPONSES
from lexora_contract.port import Sink
from lexora_router.call import Call, Target, Timeouts
from lexora_router.errors import InvalidRequest, NotFound, UpstreamBroken, UpstreamRefused, UpstreamUnreachable
from lexora_router.layers.stored_responses import MAX_ASKED, AskHome, NoteHome, OwnResponses
from lexora_router.policy.response_homes import Home, ResponseHomes
from lexora_router.principal import ANYBODY, Principal

TARGET = Target("main", Timeouts(1, 1, 1), "served")
HOME = Home("main", "http://e:1", "asked", "served")
GONE = UpstreamRefused(404, "application/json", b"{}")


class Place:
    def __init__(self, address: str, *answers: Exception | Frames | Reply) -> None:
        self.address = address
        self.answers = answers
        self.asked = 0

    async def attempt(self, call: Call, sink: Sink) -> None:
        self.asked += 1
        for answer in self.answers:
            if isinstance(answer, Exception):
                raise answer
            give(call, sink, answer)


async def attempt(call: Call, sink: Sink) -> None:
    assert call.endpoint is not None
    await call.endpoint.attempt(call, sink)


async def ask(*places: Place, homes: ResponseHomes | None = None) -> Call:
    found = [(TARGET, place) for place in places]
    layer = AskHome(attempt, homes=homes or ResponseHomes(), places=lambda _: found, clock=lambda: 5.0)
    call = make_call(response_id="resp_1")
    await layer(call, Client())
    return call


@pytest.mark.parametrize(
    "answer", [Reply(HEAD, b'{"id":"resp_1","x":1}'), Frames(b'event: a\ndata: {"response":{"id":"resp_1"}}\n\n')]
)
async def test_where_a_response_was_made_is_noted(answer: Frames | Reply) -> None:
    homes = ResponseHomes()
    place = Place("http://e:1", answer, answer)
    call = make_call(path=RESPONSES, model="asked", target=TARGET, endpoint=place)
    call.receipt.backend, call.receipt.endpoint = "main", place.address
    await NoteHome(attempt, homes=homes, clock=lambda: 5.0)(call, Client())
    assert homes.get("resp_1", 5.0) == HOME


@pytest.mark.parametrize("body", [b"[1]", b"", b'{"id":7}', b'{"id":"%b"}' % (b"x" * 300), b'{"id":null}', b"\xff"])
async def test_what_names_no_response_is_passed_on(body: bytes) -> None:
    homes, client = ResponseHomes(), Client()
    call = make_call(path=RESPONSES, target=TARGET, endpoint=Place("http://e:1", Reply(HEAD, body)))
    await NoteHome(attempt, homes=homes, clock=lambda: 5.0)(call, client)
    assert homes._homes == {}
    assert len(client.events) == 1


async def test_one_after_the_other_is_asked_until_one_has_it() -> None:
    places = [Place("a", GONE), Place("b", UpstreamUnreachable("no")), Place("c", Reply(HEAD, b"{}")), Place("d")]
    call = await ask(*places)
    assert [place.asked for place in places] == [1, 1, 1, 0]
    assert (call.receipt.endpoint, call.receipt.attempts) == ("c", 3)


async def test_an_engine_that_cannot_be_asked_says_more_than_a_404() -> None:
    with pytest.raises(UpstreamUnreachable):
        await ask(Place("a", GONE), Place("b", UpstreamUnreachable("no")), Place("c", GONE))
    with pytest.raises(UpstreamRefused):
        await ask(Place("a", GONE), Place("b", GONE))
    with pytest.raises(NotFound):
        await ask()


async def test_another_refusal_or_a_broken_stream_is_the_answer() -> None:
    other = Place("b", Reply(HEAD, b"{}"))
    with pytest.raises(UpstreamRefused):
        await ask(Place("a", UpstreamRefused(400, "application/json", b"{}")), other)
    with pytest.raises(UpstreamBroken):
        await ask(Place("a", Frames(b"data: 1\n\n"), UpstreamBroken("died")), other)
    assert other.asked == 0


async def test_no_more_than_so_many_are_asked() -> None:
    places = [Place(str(number), GONE) for number in range(MAX_ASKED + 1)]
    with pytest.raises(UpstreamRefused):
        await ask(*places)
    assert sum(place.asked for place in places) == MAX_ASKED


ACME, OTHER = Principal("acme", models=("asked",)), Principal("other")


def noted(**responses: str) -> ResponseHomes:
    """The homes of responses, by id with the tenants that they are of."""
    homes = ResponseHomes()
    for response_id, tenant in responses.items():
        homes.put(response_id, replace(HOME, tenant=tenant), 5.0)
    return homes


@pytest.mark.parametrize(
    ("principal", "response_id", "served"),
    [
        (ACME, "resp_a", True),
        (OTHER, "resp_a", False),
        (OTHER, "resp_o", True),
        (ACME, "resp_unknown", False),
        (Principal("acme", models=("else",)), "resp_a", False),
        (ANYBODY, "resp_a", True),
        (ANYBODY, "resp_unknown", True),
    ],
)
async def test_a_stored_response_is_its_tenant_s(principal: Principal, response_id: str, served: bool) -> None:
    place = Place("a", Reply(HEAD, b"{}"))
    homes = noted(resp_a="acme", resp_o="other")
    layer = AskHome(attempt, homes=homes, places=lambda _: [(TARGET, place)], clock=lambda: 5.0)
    call = make_call(response_id=response_id, principal=principal)
    if served:
        await layer(call, Client())
    else:
        with pytest.raises(NotFound) as refused:
            await layer(call, Client())
        assert refused.value.message == f"There is no response `{response_id}`."
    assert place.asked == served


IDS = [
    (b'{"previous_response_id":"resp_a"}', True, False),
    (b'{"previous_response_id":"resp_unknown"}', False, False),
    (b'{"previous_response_id":null}', True, True),
    (b'{"previous_response_id":7}', True, True),  # for the engine to refuse
    # Engines differ in which of several keys they take, and in whether case counts.
    (b'{"previous_response_id":"resp_a","previous_response_id":"resp_a"}', False, False),
    (b'{"previous_response_id":"resp_a","previous\\u005fresponse_id":"resp_o"}', False, False),
    (b'{"Previous_Response_Id":"resp_a"}', False, False),
    (b'{"PREVIOUS_RESPONSE_ID":"resp_a"}', False, False),
    ('{"previou\u017f_response_id":"resp_a"}'.encode(), False, False),
    (b'{"previou\\u017f_response_id":"resp_a"}', False, False),
    (b'{"previous_response_id":"resp_a","Request_Id":"x"}', False, False),
    (b'{"previous\\u005fresponse_id":"resp_a"}', True, False),
    (
        b'{"previous_response_id":"resp_a","input":"\\"previous_response_id\\"","metadata":{"previous_response_id":"b"}}',
        True,
        False,
    ),
    (b'{"metadata":{"Request_Id":"x"},"user":"previous_response_id"}', True, True),
    (b'{"request_id":"resp_a"}', True, False),
    (b'{"request_id":"resp_new"}', True, True),
]


@pytest.mark.parametrize(("body", "acme", "other"), IDS)
async def test_a_call_goes_on_from_responses_of_its_own_tenant(body: bytes, acme: bool, other: bool) -> None:
    for principal, served in ((ACME, acme), (OTHER, other)):
        inner = Scripted(HEAD)
        layer = OwnResponses(inner, homes=noted(resp_a="acme", resp_o="other"), clock=lambda: 5.0)
        call = make_call(path=RESPONSES, body=body, principal=principal)
        if served:
            await layer(call, Client())
        else:
            with pytest.raises((NotFound, InvalidRequest)):
                await layer(call, Client())
        assert len(inner.calls) == served
