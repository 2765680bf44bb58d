"""What a classifier says of a task."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Label:
    """A kind of task: one of the configured capabilities, empty when no classifier was sure. `confidence` is 0 to 1."""

    task_type: str
    confidence: float
    reasoning: str
    by: str
