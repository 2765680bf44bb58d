import pytest

from lexora_router.engines.media_type import BodyKind, body_of, is_blank, media_type


@pytest.mark.parametrize(
    ("start", "plain", "labelled"),
    [
        (b"data: x", BodyKind.EVENTS, BodyKind.EVENTS),
        (b"event:x", BodyKind.EVENTS, BodyKind.EVENTS),
        (b": ping", BodyKind.EVENTS, BodyKind.EVENTS),
        (b"\xef\xbb\xbf\r\n\r\nid: 1", BodyKind.EVENTS, BodyKind.EVENTS),
        (b"retr", None, BodyKind.EVENTS),
        (b"d", None, BodyKind.EVENTS),
        (b"date", BodyKind.WHOLE, BodyKind.EVENTS),
        (b'{"data:', BodyKind.WHOLE, BodyKind.WHOLE),
        (b"\n [1]", BodyKind.WHOLE, BodyKind.WHOLE),
        (b"hello", BodyKind.WHOLE, BodyKind.EVENTS),
        (b" \n\xef\xbb", None, None),
        (b"", None, None),
    ],
)
def test_how_a_body_begins_tells_what_it_is(start: bytes, plain: BodyKind | None, labelled: BodyKind | None) -> None:
    assert body_of(start, labelled=False) is plain
    assert body_of(start, labelled=True) is labelled


def test_what_may_precede_it_is_blank() -> None:
    assert is_blank(b"\r\n \t\xef\xbb\xbf")
    assert not is_blank(b"\n:")


@pytest.mark.parametrize("content_type", ["Text/Event-Stream", "text/event-stream; charset=utf-8", " TEXT/EVENT-STREAM ;x"])
def test_the_letters_of_a_media_type_have_no_case(content_type: str) -> None:
    assert media_type(content_type) == "text/event-stream"
