"""`lexora check`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lexora_cli.options import AsJson, ConfigFile, Model, Url, engine_options
from lexora_cli.screen import plain, plain_lines, print_json

if TYPE_CHECKING:
    from lexora_cli.issuer_probe import IssuerFinding
    from lexora_cli.probe import Finding
    from lexora_router.config.load import ConfigError, Loaded

CONFIG_WRONG = 1
BACKEND_SILENT = 2


def check(
    *,
    config: ConfigFile = None,
    url: Url = None,
    model: Model = None,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Ask backends and issuers whether they answer.")] = True,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Show every key that is in force.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the configuration and ask the backends.

    Issuers of tokens are asked for their keys. Problems come first, then answers; with --all every key in
    force below them, secrets masked.

    Exit code 0: all is well, 1: the configuration is wrong, 2: a backend does not answer, or an issuer's keys cannot be read.

    \b
    Examples:
      lexora check
      lexora check --url http://gpu1:8000
      lexora check --config lexora_config.yaml --no-probe --all
      lexora check --json
    """
    import os

    from lexora_router.config.load import ConfigError, load

    try:
        loaded = load(config, os.environ, engine_options(url, model), search=not url)
    except ConfigError as error:
        _refuse(error, as_json)
        raise typer.Exit(CONFIG_WRONG) from None
    if (problem := _keys_problem(loaded)) is not None:
        _refuse(problem, as_json)
        raise typer.Exit(CONFIG_WRONG)
    if not as_json:
        _show_warnings(loaded, hint="" if everything else "; --all shows every key in force")
    findings, issuers = _probe(loaded) if probe else ([], [])
    if as_json:
        _print_json(loaded, findings, issuers, probed=probe)
    else:
        _show_findings(findings, issuers)
    if everything and not as_json:
        _show_keys(loaded)
    raise typer.Exit(0 if _all_well(findings, issuers) else BACKEND_SILENT)


def _keys_problem(loaded: "Loaded") -> "ConfigError | None":
    """Why the file of keys would keep a gateway from starting, if it would."""
    from pathlib import Path

    from lexora_router.access.key_file import KeyFileError, read_keys
    from lexora_router.config.load import ConfigError
    from lexora_router.config.problems import Problem

    if not loaded.config.auth.keys:
        return None
    try:
        read_keys(Path(loaded.config.auth.keys_file))
    except KeyFileError as error:
        absent = str(error).endswith("No such file or directory")
        advice = "; `lexora keys create --name NAME --admin` makes it" if absent else ""
        return ConfigError([Problem(None, ("auth", "keys_file"), f"{error}{advice}")])
    return None


def _refuse(error: "ConfigError", as_json: bool) -> None:
    import sys

    from lexora_router.process.launch import complaint

    if as_json:
        print_json({"ok": False, "problems": [str(problem) for problem in error.problems]})
    else:
        sys.stderr.write(f"{complaint(error)}\n")


def _probe(loaded: "Loaded") -> "tuple[list[Finding], list[IssuerFinding]]":
    import asyncio

    from lexora_cli.issuer_probe import probe_issuers
    from lexora_cli.probe import probe_all

    async def both() -> "tuple[list[Finding], list[IssuerFinding]]":
        return await asyncio.gather(probe_all(loaded.config), probe_issuers(loaded.config))

    return asyncio.run(both())


def _all_well(findings: "list[Finding]", issuers: "list[IssuerFinding]") -> bool:
    return all(finding.healthy for finding in findings) and all(finding.healthy for finding in issuers)


def _show_warnings(loaded: "Loaded", *, hint: str) -> None:
    from rich.markup import escape

    from lexora_cli.screen import err
    from lexora_contract.escape import escaped

    plain(f"configuration: {loaded.path or 'no file'}{hint}")
    for warning in loaded.warnings:
        err().print(f"[yellow]warning:[/yellow] {escape(escaped(warning))}")
    for opening in loaded.open:
        err().print(f"[yellow]open to the network:[/yellow] {escape(opening)}")


def _show_findings(findings: "list[Finding]", issuers: "list[IssuerFinding]") -> None:
    from lexora_cli.check_text import issuer_lines, lines
    from lexora_cli.screen import out

    for line in lines(sorted(findings, key=lambda finding: finding.healthy)):
        out().print(line)
    for line in issuer_lines(sorted(issuers, key=lambda finding: finding.healthy)):
        out().print(line)


def _show_keys(loaded: "Loaded") -> None:
    from lexora_router.config.load import dump

    plain("")
    plain(f"# in force: the defaults, {loaded.path or 'no file'}, and LEXORA_* variables")
    plain_lines(dump(loaded.config).rstrip())


def _print_json(loaded: "Loaded", findings: "list[Finding]", issuers: "list[IssuerFinding]", *, probed: bool) -> None:
    from dataclasses import asdict

    import yaml

    from lexora_router.config.load import dump

    report: dict[str, Any] = {
        "ok": _all_well(findings, issuers),
        "file": str(loaded.path) if loaded.path else None,
        "warnings": list(loaded.warnings),
        "open": list(loaded.open),
        "endpoints": [asdict(finding) for finding in findings] if probed else None,
        "issuers": [asdict(finding) for finding in issuers] if probed else None,
        "config": yaml.safe_load(dump(loaded.config)),
    }
    print_json(report)
