"""`make bench-classify`: how well each classifier sorts the labelled tasks of tests/data, and how long it takes.

Against the simulator unless `--llm-url` and `--embedding-url` name real engines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import yaml

from lexora.v1.classify_pb2 import ClassifyRequest
from lexora.v1.receipt_pb2 import CLASSIFIER_DEFAULT
from lexora_contract.port import CallContext
from lexora_router.config import Config
from lexora_router.process.app import RouterApp
from lexora_sim import SimSettings, Simulator

DATA = Path(__file__).parents[1] / "data"
TYPES: dict[str, list[str]] = {
    "rules": ["rules"],
    "embedding": ["embedding"],
    "llm": ["llm"],
    "chain": ["rules", "embedding", "llm"],
}
SIMULATED = {
    "llm": "llm is the simulator's list of words, not a model: its figures show that the way works, not how well models sort.",
    "embedding": "embedding is the simulator's: it knows which letters texts share, not what they mean.",
}
DIMENSIONS = 512
LANGUAGES = ("en", "ja")
LEVELS = ("plain", "indirect", "hard")


@dataclass(frozen=True)
class Task:
    """A task and the capability that it needs.

    `level`: plain ones say what they want, indirect ones do not use its usual words, hard ones use words of another kind.
    """

    task: str
    capability: str
    language: str
    level: str


@dataclass(frozen=True)
class Outcome:
    """What a classifier said of a task (empty: it abstained), and the seconds it took, asked first and asked again."""

    task: Task
    said: str
    seconds: float
    again: float

    @property
    def right(self) -> bool:
        return self.said == self.task.capability


def tasks() -> list[Task]:
    """The labelled tasks."""
    return [Task(**row) for row in read_rows("classify_tasks.jsonl")]


def read_rows(name: str) -> list[dict[str, Any]]:
    """The objects of one file of tests/data."""
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def configuration(kinds: Sequence[str], llm: str, embedding: str, models: tuple[str, str]) -> Config:
    """A router with one model for each capability, and these classifiers in this order."""
    capabilities = sorted({task.capability for task in tasks()})
    examples = [{"text": row["text"], "capability": row["capability"]} for row in read_rows("classify_examples.jsonl")]
    served = [{"name": f"model-{name}", "capabilities": [name]} for name in capabilities]
    classifier = {
        "enabled": True,
        "type": list(kinds),
        "model": models[0],
        "backend": "llm",
        "rules": yaml.safe_load((DATA / "classify_rules.yaml").read_text(encoding="utf-8")),
        "embedding": {"model": models[1], "backend": "embedding", "min_similarity": 0.2, "examples": examples},
    }
    routing = {
        "default_model_for_unknown_task": "model-general",
        "classifier": classifier,
        "backends": {"llm": {"url": llm, "models": served}, "embedding": {"url": embedding, "models": [models[1]]}},
    }
    return Config.model_validate({"routing": routing, "rate_limit": {"enabled": False}})


async def measure(config: Config, given: Iterable[Task]) -> list[Outcome]:
    """Ask for every task twice: the second answer is a remembered one."""
    app = RouterApp(config)
    await app.start("127.0.0.1", 0)
    try:
        return [await _ask(app, task) for task in given]
    finally:
        await app.stop()


async def _ask(app: RouterApp, task: Task) -> Outcome:
    request = ClassifyRequest(task_description=task.task)
    began = time.perf_counter()
    answer = await app.services.router.classify(request, CallContext())
    between = time.perf_counter()
    await app.services.router.classify(request, CallContext())
    said = "" if answer.classifier == CLASSIFIER_DEFAULT else answer.task_type
    return Outcome(task, said, between - began, time.perf_counter() - between)


def share(outcomes: Sequence[Outcome], fits: Callable[[Outcome], bool]) -> float:
    """Percent of the outcomes; 0 of none."""
    return 100 * sum(map(fits, outcomes)) / len(outcomes) if outcomes else 0.0


def report(measured: dict[str, list[Outcome]]) -> str:
    """One line for each classifier: percent right of all, answered at all, right of those; parts; milliseconds."""
    columns = ("accuracy", "coverage", "precision", *LANGUAGES, *LEVELS, "ms p50", "ms p99", "again p50")
    lines = [f"{'type':<10}" + "".join(f"{column:>11}" for column in columns)]
    for name, outcomes in measured.items():
        answered = [each for each in outcomes if each.said]
        parts = [[each for each in outcomes if each.task.language == language] for language in LANGUAGES]
        parts += [[each for each in outcomes if each.task.level == level] for level in LEVELS]
        shares = [_right(outcomes), share(outcomes, lambda each: bool(each.said)), _right(answered), *map(_right, parts)]
        times = sorted(1000 * each.seconds for each in outcomes)
        again = statistics.median(1000 * each.again for each in outcomes)
        cells = [f"{each:>10.1f}%" for each in shares]
        cells += [f"{each:>11.2f}" for each in (statistics.median(times), times[int(0.99 * (len(times) - 1))], again)]
        lines.append(f"{name:<10}" + "".join(cells))
    return "\n".join(lines)


def _right(outcomes: Sequence[Outcome]) -> float:
    return share(outcomes, lambda each: each.right)


def mistakes(measured: dict[str, list[Outcome]]) -> str:
    """Every wrong answer, by classifier."""
    return "\n".join(
        f"{name}: {each.task.capability} taken for {each.said}: {each.task.task}"
        for name, outcomes in measured.items()
        for each in outcomes
        if each.said and not each.right
    )


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.classify", description=__doc__)
    parser.add_argument("--only", choices=TYPES, action="append", help="this classifier; may be repeated")
    parser.add_argument("--llm-url", help="an engine that serves --llm-model, instead of the simulator")
    parser.add_argument("--llm-model", default="model-general")
    parser.add_argument("--embedding-url", help="an engine that serves --embedding-model, instead of the simulator")
    parser.add_argument("--embedding-model", default="vectors")
    parser.add_argument("--mistakes", action="store_true", help="show every wrong answer")
    return parser.parse_args(arguments)


async def run(options: argparse.Namespace) -> dict[str, list[Outcome]]:
    """Measure the classifiers that were asked for."""
    settings = SimSettings(
        port=0,
        models=(options.llm_model,),
        embedding_models=(options.embedding_model,),
        embedding_dimensions=DIMENSIONS,
        ttft_ms=1.0,
        itl_ms=0.0,
    )
    given, measured = tasks(), {}
    async with Simulator(settings) as sim:
        for name in options.only or TYPES:
            models = (options.llm_model, options.embedding_model)
            config = configuration(TYPES[name], options.llm_url or sim.url, options.embedding_url or sim.url, models)
            measured[name] = await measure(config, given)
    return measured


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    measured = asyncio.run(run(options))
    count = len(tasks())
    print(f"{count} labelled tasks (tests/data/classify_tasks.jsonl), English and Japanese; an abstention counts as wrong")
    for kind, url in (("llm", options.llm_url), ("embedding", options.embedding_url)):
        if not url and any(kind in TYPES[name] for name in measured):
            print(f"simulated: {SIMULATED[kind]}")
    print(report(measured))
    if options.mistakes:
        print(mistakes(measured))
    return 0


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(main(sys.argv[1:]))
