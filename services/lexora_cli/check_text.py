"""What the backends said, for people."""

from collections.abc import Iterable, Iterator

from rich.markup import escape

from lexora_cli.discovery_probe import DiscoveryFinding
from lexora_cli.issuer_probe import IssuerFinding
from lexora_cli.probe import Finding
from lexora_cli.store_probe import StoreFinding
from lexora_contract.escape import escaped

_SHOWN_MODELS = 10
_UNTIL_FOUND = "its calls are answered 503 until an endpoint is found: correct its discover, or what is looked up there"
_UNTIL_THEN = "its tokens are answered 503 until its keys can be read: correct its entry in auth.jwt, or the network"
_ALONE_UNTIL_THEN = "until it can be used each replica takes a fair share of the limits: correct state, or the network"


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """One line for each endpoint, and below it what to do, in rich's markup."""
    for finding in findings:
        where = f"[bold]{_plain(finding.backend)}[/bold] {_plain(finding.endpoint)}"
        if finding.trouble is not None:
            yield f"[red]FAILED[/red]  {where}: {_plain(finding.trouble.problem)}"
            yield f"        {_plain(finding.trouble.advice)}"
            continue
        yield f"[green]answers[/green] {where}: {finding.latency_ms:g} ms, {_plain(_models(finding))}"
        if finding.missing:
            yield f"        [yellow]configured, but not listed by the engine:[/yellow] {_plain(', '.join(finding.missing))}"


def discovery_lines(findings: Iterable[DiscoveryFinding]) -> Iterator[str]:
    """The same for each backend whose endpoints are discovered."""
    for finding in findings:
        where = f"[bold]{_plain(finding.backend)}[/bold] {_plain(finding.source)}"
        if finding.problem:
            yield f"[red]FAILED[/red]  {where}: {_plain(finding.problem)}"
            yield f"        {_UNTIL_FOUND}"
        else:
            yield f"[green]answers[/green] {where}: {len(finding.endpoints)} endpoints"


def issuer_lines(findings: Iterable[IssuerFinding]) -> Iterator[str]:
    """The same for each issuer of tokens."""
    for finding in findings:
        where = f"[bold]{_plain(finding.name)}[/bold] {_plain(finding.issuer)}"
        if finding.problem:
            yield f"[red]FAILED[/red]  {where}: {_plain(finding.problem)}"
            yield f"        {_UNTIL_THEN}"
        else:
            yield f"[green]answers[/green] {where}: {_plain(finding.summary)}"


def store_lines(findings: Iterable[StoreFinding]) -> Iterator[str]:
    """The same for the store that replicas share."""
    for finding in findings:
        where = f"[bold]state[/bold] {_plain(finding.store)}"
        if finding.problem:
            yield f"[red]FAILED[/red]  {where}: {_plain(finding.problem)}"
            yield f"        {_ALONE_UNTIL_THEN}"
        else:
            yield f"[green]answers[/green] {where}: {_plain(finding.summary)}"


def _models(finding: Finding) -> str:
    models = finding.models
    if models is None:
        return "does not list its models"
    if not models:
        return "lists no models"
    rest = f" and {len(models) - _SHOWN_MODELS} more" if len(models) > _SHOWN_MODELS else ""
    return f"models: {', '.join(models[:_SHOWN_MODELS])}{rest}"


def _plain(text: str) -> str:
    return escape(escaped(text))
