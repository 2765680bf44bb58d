"""`lexora check`."""

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from lexora_cli.options import AsJson, ConfigFile, Model, Url, engine_options
from lexora_cli.screen import plain, plain_lines, print_json

if TYPE_CHECKING:
    from lexora_cli.discovery_probe import DiscoveryFinding
    from lexora_cli.issuer_probe import IssuerFinding
    from lexora_cli.probe import Finding
    from lexora_cli.store_probe import StoreFinding
    from lexora_router.config.load import ConfigError, Loaded

CONFIG_WRONG = 1
BACKEND_SILENT = 2


class _Answers(NamedTuple):
    """What endpoints, issuers of tokens, sources of discovered endpoints and the store of several replicas said."""

    endpoints: "tuple[Finding, ...]" = ()
    issuers: "tuple[IssuerFinding, ...]" = ()
    sources: "tuple[DiscoveryFinding, ...]" = ()
    stores: "tuple[StoreFinding, ...]" = ()

    @property
    def well(self) -> bool:
        """Whether all is well."""
        return all(finding.healthy for group in self for finding in group)


def check(
    *,
    config: ConfigFile = None,
    url: Url = None,
    model: Model = None,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Ask backends, issuers and the store.")] = True,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Show every key that is in force.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the configuration and ask the backends.

    Engines that are discovered are looked for once, issuers of tokens are asked for their keys, and the store that
    replicas share is tried. Problems come first, then answers; with --all every key in force below them, secrets masked.

    Exit code 0: all is well, 1: the configuration is wrong, 2: a backend does not answer, an issuer's keys cannot be read,
    or the store cannot be used.

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
    answers = _probe(loaded) if probe else _Answers()
    if as_json:
        _print_json(loaded, answers, probed=probe)
    else:
        _show_findings(answers)
    if everything and not as_json:
        _show_keys(loaded)
    raise typer.Exit(0 if answers.well else BACKEND_SILENT)


def _keys_problem(loaded: "Loaded") -> "ConfigError | None":
    """Why the file of keys would keep a gateway from starting, if it would."""
    from pathlib import Path

    from lexora_router.access.key_file import KeyFileError, read_keys
    from lexora_router.config.load import ConfigError
    from lexora_router.config.problems import Problem

    if not loaded.config.auth.takes_keys or "file" not in loaded.config.auth.keys:
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


def _probe(loaded: "Loaded") -> _Answers:
    import asyncio

    from lexora_cli.discovery_probe import find_engines
    from lexora_cli.issuer_probe import probe_issuers
    from lexora_cli.probe import probe_all
    from lexora_cli.store_probe import probe_store

    async def engines() -> "tuple[list[Finding], list[DiscoveryFinding]]":
        sources = await find_engines(loaded.config)
        return await probe_all(loaded.config, {found.backend: found.endpoints for found in sources}), sources

    async def ask() -> _Answers:
        config = loaded.config
        (endpoints, sources), issuers, stores = await asyncio.gather(engines(), probe_issuers(config), probe_store(config))
        return _Answers(tuple(endpoints), tuple(issuers), tuple(sources), tuple(stores))

    return asyncio.run(ask())


def _show_warnings(loaded: "Loaded", *, hint: str) -> None:
    from rich.markup import escape

    from lexora_cli.screen import err
    from lexora_contract.escape import escaped

    plain(f"configuration: {loaded.path or 'no file'}{hint}")
    for warning in loaded.warnings:
        err().print(f"[yellow]warning:[/yellow] {escape(escaped(warning))}")
    for opening in loaded.open:
        err().print(f"[yellow]open to the network:[/yellow] {escape(opening)}")


def _show_findings(answers: _Answers) -> None:
    from lexora_cli.check_text import discovery_lines, issuer_lines, lines, store_lines
    from lexora_cli.screen import out

    for line in discovery_lines(sorted(answers.sources, key=lambda finding: finding.healthy)):
        out().print(line)
    for line in lines(sorted(answers.endpoints, key=lambda finding: finding.healthy)):
        out().print(line)
    for line in issuer_lines(sorted(answers.issuers, key=lambda finding: finding.healthy)):
        out().print(line)
    for line in store_lines(answers.stores):
        out().print(line)


def _show_keys(loaded: "Loaded") -> None:
    from lexora_router.config.load import dump

    plain("")
    plain(f"# in force: the defaults, {loaded.path or 'no file'}, and LEXORA_* variables")
    plain_lines(dump(loaded.config).rstrip())


def _print_json(loaded: "Loaded", answers: _Answers, *, probed: bool) -> None:
    from dataclasses import asdict

    import yaml

    from lexora_router.config.load import dump

    report: dict[str, Any] = {
        "ok": answers.well,
        "file": str(loaded.path) if loaded.path else None,
        "warnings": list(loaded.warnings),
        "open": list(loaded.open),
        "endpoints": [asdict(finding) for finding in answers.endpoints] if probed else None,
        "discovered": [asdict(finding) for finding in answers.sources] if probed else None,
        "issuers": [asdict(finding) for finding in answers.issuers] if probed else None,
        "stores": [asdict(finding) for finding in answers.stores] if probed else None,
        "config": yaml.safe_load(dump(loaded.config)),
    }
    print_json(report)
