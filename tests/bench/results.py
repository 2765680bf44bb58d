"""What was measured, and the file that holds it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench.measure import Round
from tests.bench.pairs import Pair

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.engine import Json


@dataclass
class Results:
    """Everything that was measured; `setting` is what the figures depend on, in a line."""

    setting: str = ""
    rounds: list[Round] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    sweep: dict[str, dict[str, Json]] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there is anything."""
        return bool(self.rounds or self.pairs or self.sweep)

    def write(self, file: Path) -> None:
        """Save it as JSON, in a folder that is made if need be."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def read(file: Path) -> Results:
    """What `Results.write` saved. Raises OSError, and ValueError when the file is something else."""
    try:
        saved = json.loads(file.read_text())
        return Results(
            saved["setting"],
            [Round(**each) for each in saved["rounds"]],
            [Pair(**each) for each in saved["pairs"]],
            saved["sweep"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} holds no results of a benchmark ({error!r})") from error
