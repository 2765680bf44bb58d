import io

import pytest
from rich.console import Console

from lexora.v1.explain_pb2 import EndpointExplanation, ExplainResponse, RouteExplanation, TargetExplanation, TenantExplanation
from lexora.v1.health_pb2 import BACKEND_STATUS_HEALTHY, BREAKER_STATE_CLOSED, BREAKER_STATE_OPEN
from lexora_cli.explain_text import explained


def shown(answer: ExplainResponse, *, terminal: bool = False) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=40, soft_wrap=True, highlight=False, force_terminal=terminal)
    for line in explained(answer):
        console.print(line)
    return screen.getvalue()


def answer(verdict: str = "VERDICT_DISPATCH") -> ExplainResponse:
    first = EndpointExplanation(
        address="http://gpu1:8000", eligible=True, score=2.5, in_flight=1, limit=64, breaker=BREAKER_STATE_CLOSED, weight=0.4
    )
    second = EndpointExplanation(address="http://gpu2:8000", eligible=True, in_flight=0, breaker=BREAKER_STATE_CLOSED, weight=1)
    third = EndpointExplanation(address="http://gpu3:8000", reason="breaker open", breaker=BREAKER_STATE_OPEN, weight=1)
    main = TargetExplanation(
        backend="main",
        model="m",
        status=BACKEND_STATUS_HEALTHY,
        verdict=verdict,
        reason="2 endpoints have free slots.",
        max_waiting=1000,
        endpoints=[first, second, third],
        falls_back_on="a full queue",
    )
    return ExplainResponse(
        summary=["The call would be sent at once, to `main`.", "more"],
        route=RouteExplanation(reason="`m` is configured at backend `main`."),
        tenant=TenantExplanation(reason="`bob` has priority 50."),
        targets=[main, TargetExplanation(backend="small", verdict="VERDICT_REJECT")],
        verdict=verdict,
    )


def test_lines_are_never_cut_and_endpoints_stand_in_columns() -> None:
    lines = shown(answer()).splitlines()
    assert lines == [
        "The call would be sent at once, to `main`.",
        "route   `m` is configured at backend `main`.",
        "tenant  `bob` has priority 50.",
        "",
        "backend main as m, healthy, 0 of 1,000 waiting: dispatch",
        "  2 endpoints have free slots.",
        "  endpoint          next    in flight  score  breaker  why not",
        "  http://gpu1:8000  likely  1/64       2.5    closed   comes back slowly, with 40% of its share",
        "  http://gpu2:8000  maybe   0          -      closed",
        "  http://gpu3:8000  no      0          -      open     breaker open",
        "  goes on to small on a full queue",
        "",
        "fallback small, unknown, 0 of 0 waiting: reject",
        "  ",
        "  endpoint  next  in flight  score  breaker  why not",
    ]


@pytest.mark.parametrize(("verdict", "colour"), [("VERDICT_DISPATCH", "32"), ("VERDICT_QUEUE", "33"), ("VERDICT_REJECT", "31")])
def test_a_terminal_sees_the_verdict_in_its_colour(verdict: str, colour: str) -> None:
    assert f";{colour}m" in shown(answer(verdict), terminal=True).splitlines()[0]


def test_a_verdict_of_another_version_and_names_full_of_controls_do_no_harm() -> None:
    found = answer("VERDICT_UNSPECIFIED")
    found.tenant.reason = "`\x1b[2J` has [bold]brackets[/bold]"
    text = shown(found, terminal=True)
    assert r"tenant  `\x1b[2J` has [bold]brackets[/bold]" in text
