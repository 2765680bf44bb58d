from prometheus_client import CollectorRegistry, generate_latest
from tests.support.servers import metric

from lexora_router.telemetry.reloads import MAX_LINES, Reload, ReloadCollector, ReloadLog, Result


def exposed(log: ReloadLog, name: str, **labels: str) -> float:
    registry = CollectorRegistry()
    registry.register(ReloadCollector(log))
    return metric(generate_latest(registry).decode(), name, **labels)


def test_the_last_one_and_the_counts() -> None:
    log = ReloadLog(lambda: 5.0)
    assert log.last is None
    log.add(Result.REFUSED, "file", problems=["a", "b"])
    log.add(Result.UNCHANGED, "rpc")
    last = log.add(Result.APPLIED, "signal", changed=["k"], restart=["k"], warnings=["w"])
    assert log.last is last
    assert last == Reload(Result.APPLIED, "signal", 5.0, (), ("w",), ("k",), ("k",), good=2, bad=1)


def test_the_metrics() -> None:
    log = ReloadLog()
    assert exposed(log, "lexora_config_last_reload_success") == 1
    assert exposed(log, "lexora_config_reloads_total") == 0
    log.add(Result.REFUSED, "file")
    assert exposed(log, "lexora_config_last_reload_success") == 0
    log.add(Result.APPLIED, "file")
    assert exposed(log, "lexora_config_last_reload_success") == 1
    for result, count in ((Result.REFUSED, 1), (Result.APPLIED, 1), (Result.UNCHANGED, 0)):
        assert exposed(log, "lexora_config_reloads_total", result=result.value) == count


def test_a_file_that_is_wrong_in_every_line_is_cut() -> None:
    problems = ReloadLog().add(Result.REFUSED, "file", problems=map(str, range(MAX_LINES + 7))).problems
    assert len(problems) == MAX_LINES + 1
    assert problems[-1] == "... and 7 more"
