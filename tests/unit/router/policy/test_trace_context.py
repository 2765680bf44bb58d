import pytest

from lexora_router.policy.trace_context import TraceContext, context_of, in_ratio, parse, trace_id_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("traceparent", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-ff", 3),  # what has no meaning yet is not passed on
        (f"cc-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", 1),
    ],
)
def test_a_context_is_read(traceparent: str, flags: int) -> None:
    found = parse(traceparent)
    assert found == TraceContext(TRACE, SPAN, flags)
    assert found.sampled is bool(flags & 1)
    assert found.traceparent == f"00-{TRACE}-{SPAN}-0{flags}"


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01 ",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
    ],
)
def test_what_is_none_is_none(traceparent: str) -> None:
    assert parse(traceparent) is None
    assert trace_id_of((("traceparent", traceparent),)) == ""


def test_the_context_of_headers() -> None:
    headers = (("tracestate", "a=1"), ("traceparent", f"00-{TRACE}-{SPAN}-01"))
    assert context_of(headers) == TraceContext(TRACE, SPAN, 1)
    assert trace_id_of(headers) == TRACE
    assert context_of((("tracestate", "a=1"),)) is None
    assert trace_id_of(()) == ""


def test_a_share_of_traces() -> None:
    low, high = "f" * 16 + "0" * 16, "0" * 16 + "f" * 16
    assert [in_ratio(low, ratio) for ratio in (0.0, 0.1, 1.0)] == [False, True, True]
    assert [in_ratio(high, ratio) for ratio in (0.0, 0.1, 1.0)] == [False, False, True]
