"""Commands, options, make targets and configuration keys that the pages name exist."""

import re
import shlex
from collections.abc import Iterator
from typing import cast

import click
import pytest
import typer
from google.protobuf import json_format
from tests.unit.docs.pages import PATHS, ROOT, Page

from lexora_cli.main import app
from lexora_contract.rpcs import RPCS
from lexora_router.config.shape import leaves

PAGES = [Page(path) for path in PATHS]
NAMES = [str(path.relative_to(ROOT)) for path in PATHS]
KEYS = {".".join(path).replace("*", "NAME").replace(".[]", "[]") for path, _ in leaves()}
SECTIONS = "|".join(sorted({key.partition(".")[0] for key in KEYS}))


def commands() -> dict[str, click.Command]:
    return dict(cast("click.Group", typer.main.get_command(app)).commands)


def snippets(each: Page) -> Iterator[str]:
    yield from each.spans
    for language, text in each.blocks:
        if language in ("", "sh", "console"):
            yield from text.splitlines()


@pytest.mark.parametrize("each", PAGES, ids=NAMES)
def test_every_subcommand_and_option_exists(each: Page) -> None:
    known = commands()
    for snippet in snippets(each):
        for found in re.finditer(r"(?:^|(?<=[\s/]))lexora ([a-z][a-z-]*)(?=\s|$)([^#|]*)", snippet):
            assert found[1] in known, snippet
            command, words = known[found[1]], shlex.split(found[2])
            if words and hasattr(command, "commands"):
                assert words[0] in command.commands, snippet
                command = command.commands[words[0]]
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert options <= {opt for param in command.params for opt in param.opts}, snippet


def test_the_pages_name_every_subcommand() -> None:
    named = {found for each in PAGES for snippet in snippets(each) for found in re.findall(r"lexora ([a-z-]+)", snippet)}
    assert set(commands()) - {"chat", "demo"} <= named


@pytest.mark.parametrize("each", PAGES, ids=NAMES)
def test_every_make_target_exists(each: Page) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {found for snippet in snippets(each) for found in re.findall(r"(?:^|\s)make ([a-z-]+)", snippet)}
    assert named <= targets


def test_every_message_for_buf_curl_is_one_of_the_contract() -> None:
    sent = [
        found.groups()
        for each in PAGES
        for _, text in each.blocks
        for found in re.finditer(r"buf curl .*-d '([^']*)' http://[^/]+(/lexora\.\S+)", text)
    ]
    assert len(sent) >= 2
    for body, path in sent:
        json_format.Parse(body, RPCS[path].request())


# OpenTelemetry's words, which begin like keys of ours.
SPAN_ATTRIBUTES = {"server.address"}


@pytest.mark.parametrize("each", PAGES, ids=NAMES)
def test_every_configuration_key_exists(each: Page) -> None:
    for span in set(each.spans) - SPAN_ATTRIBUTES:
        if re.fullmatch(rf"(?:{SECTIONS})(?:\.[\w\[\]]+)+", span):
            assert any(key == span or key.startswith((f"{span}.", f"{span}[")) for key in KEYS), span


def test_every_test_that_is_named_exists() -> None:
    named = {found for each in PAGES for span in each.spans for found in re.findall(r"tests/[\w/]+\.py", span)}
    assert len(named) > 10
    assert not [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
