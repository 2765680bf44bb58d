"""An explanation of where a call would go, for people."""

from collections.abc import Iterator

from rich.text import Text

from lexora.v1.explain_pb2 import EndpointExplanation, ExplainResponse, TargetExplanation, Verdict
from lexora.v1.health_pb2 import BackendStatus, BreakerState, Discovery
from lexora_cli.columns import columns
from lexora_contract.enums import word
from lexora_contract.escape import escaped

_COLOURS = {"dispatch": "green", "queue": "yellow", "reject": "red", "likely": "green", "no": "red"}
_HEAD = ("endpoint", "next", "in flight", "score", "breaker", "why not")


def explained(answer: ExplainResponse) -> Iterator[Text]:
    """The verdict, the route, the tenant, and each target with its endpoints, line by line."""
    verdict = word(Verdict, answer.verdict)
    yield Text(escaped(answer.summary[0] if answer.summary else verdict), style=f"bold {_colour(verdict)}")
    yield _line(f"route   {answer.route.reason}")
    yield _line(f"tenant  {answer.tenant.reason}")
    for number, target in enumerate(answer.targets):
        yield Text()
        yield _title(target, "fallback" if number else "backend")
        yield _line(f"  {target.reason}")
        if target.HasField("discovery"):
            yield _line(f"  {_discovered(target.discovery)}")
        yield from _endpoints(target)
        if target.falls_back_on:
            yield _line(f"  goes on to {answer.targets[number + 1].backend} on {target.falls_back_on}")


def _title(target: TargetExplanation, kind: str) -> Text:
    model, verdict = f" as {target.model}" if target.model else "", word(Verdict, target.verdict)
    waiting = f"{target.waiting:,} of {target.max_waiting:,} waiting"
    return Text.assemble(
        (f"{kind} {escaped(target.backend)}", "bold"),
        f"{escaped(model)}, {word(BackendStatus, target.status)}, {waiting}: ",
        (verdict, _colour(verdict)),
    )


def _discovered(found: Discovery) -> str:
    problem = f"; the last look failed: {found.problem}" if found.problem else ""
    return f"{found.endpoints} endpoints, discovered by {found.source}{problem}"


def _endpoints(target: TargetExplanation) -> Iterator[Text]:
    rows = (_cells(each, first=each is target.endpoints[0]) for each in target.endpoints)
    return (Text("  ").append(line) for line in columns(_HEAD, rows, style=""))


def _cells(endpoint: EndpointExplanation, *, first: bool) -> tuple[str | Text, ...]:
    slow = f"comes back slowly, with {endpoint.weight:.0%} of its share" if endpoint.weight < 1 else ""
    chance = "no" if not endpoint.eligible else "likely" if first else "maybe"
    return (
        endpoint.address,
        Text(chance, _colour(chance)),
        f"{endpoint.in_flight}/{endpoint.limit}" if endpoint.HasField("limit") else str(endpoint.in_flight),
        f"{endpoint.score:.3g}" if endpoint.HasField("score") else "-",
        word(BreakerState, endpoint.breaker),
        "; ".join(part for part in (endpoint.reason, slow) if part),
    )


def _line(text: str) -> Text:
    return Text(escaped(text))


def _colour(text: str) -> str:
    return _COLOURS.get(text, "")
