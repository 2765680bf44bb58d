import pytest

from lexora_router.engines.media_type import Body, body_of, is_blank, media_type


@pytest.mark.parametrize(
    ("start", "plain", "labelled"),
    [
        (b"data: x", Body.EVENTS, Body.EVENTS),
        (b"event:x", Body.EVENTS, Body.EVENTS),
        (b": ping", Body.EVENTS, Body.EVENTS),
        (b"\xef\xbb\xbf\r\n\r\nid: 1", Body.EVENTS, Body.EVENTS),
        (b"retr", None, Body.EVENTS),
        (b"d", None, Body.EVENTS),
        (b"date", Body.WHOLE, Body.EVENTS),
        (b'{"data:', Body.WHOLE, Body.WHOLE),
        (b"\n [1]", Body.WHOLE, Body.WHOLE),
        (b"hello", Body.WHOLE, Body.EVENTS),
        (b" \n\xef\xbb", None, None),
        (b"", None, None),
    ],
)
def test_how_a_body_begins_tells_what_it_is(start: bytes, plain: Body | None, labelled: Body | None) -> None:
    assert body_of(start, labelled=False) is plain
    assert body_of(start, labelled=True) is labelled


def test_what_may_precede_it_is_blank() -> None:
    assert is_blank(b"\r\n \t\xef\xbb\xbf")
    assert not is_blank(b"\n:")


@pytest.mark.parametrize("content_type", ["Text/Event-Stream", "text/event-stream; charset=utf-8", " TEXT/EVENT-STREAM ;x"])
def test_the_letters_of_a_media_type_have_no_case(content_type: str) -> None:
    assert media_type(content_type) == "text/event-stream"
