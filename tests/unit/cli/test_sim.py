import dataclasses

import pytest
from typer.testing import CliRunner

import lexora_sim
from lexora_cli.main import app
from lexora_cli.sim_options import OPTIONS
from lexora_sim import SimSettings

_TYPES = {"tuple[str, ...]": "list[str]"}


def test_every_setting_is_an_option_with_the_same_default() -> None:
    options = {option.name: option.default for option in OPTIONS}
    assert options == {field.name: field.default for field in dataclasses.fields(SimSettings)}


def test_every_option_has_the_type_of_its_setting() -> None:
    kinds = {o.name: o.kind.__name__ if isinstance(o.kind, type) and o.kind.__module__ == "builtins" else "" for o in OPTIONS}
    for field in dataclasses.fields(SimSettings):
        wanted = _TYPES.get(str(field.type), str(field.type))
        option = next(option for option in OPTIONS if option.name == field.name)
        assert wanted in (kinds[field.name], str(option.kind)), field.name


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[SimSettings]:
    seen: list[SimSettings] = []

    def run(settings: SimSettings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(lexora_sim, "run", run)
    return seen


def test_options_become_settings(ran: list[SimSettings]) -> None:
    arguments = [
        "--port",
        "0",
        "--model",
        "a",
        "--model",
        "b",
        "--embedding-model",
        "e",
        "--itl-ms",
        "1.5",
        "--no-prefix-cache",
        "--max-queued",
        "3",
    ]
    result = CliRunner().invoke(app, ["sim", *arguments])
    assert result.exit_code == 0, result.output
    assert ran == [
        SimSettings(port=0, models=("a", "b"), embedding_models=("e",), itl_ms=1.5, prefix_cache=False, max_queued=3)
    ]


def test_no_options_are_the_defaults(ran: list[SimSettings]) -> None:
    assert CliRunner().invoke(app, ["sim"]).exit_code == 0
    assert ran == [SimSettings()]


def test_only_embedding_models_serve_no_other(ran: list[SimSettings]) -> None:
    assert CliRunner().invoke(app, ["sim", "--embedding-model", "e"]).exit_code == 0
    assert ran[0].models == ()


def test_nonsense_is_a_usage_error(ran: list[SimSettings]) -> None:
    result = CliRunner().invoke(app, ["sim", "--coalesce", "0"])
    assert (result.exit_code, ran) == (2, [])
    assert "coalesce must be at least 1" in result.stderr
