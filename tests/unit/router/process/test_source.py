import os
from pathlib import Path

import pytest

from lexora_router.config.load import ConfigError
from lexora_router.process.source import ConfigSource


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text("server: {port: 1}\n")
    return path


def source(file: Path | None, **environ: str) -> ConfigSource:
    return ConfigSource(None if file is None else str(file), {"server.port": None, "server.grpc_port": 7}, environ)


def test_file_environment_and_options_in_that_order(file: Path) -> None:
    loaded = source(file, LEXORA_SERVER__PORT="2", LEXORA_SERVER__GRPC_PORT="3").load()
    assert (loaded.config.server.port, loaded.config.server.grpc_port) == (2, 7)
    assert loaded.path == file


def test_no_news_of_a_file_that_stays_as_it_was_read(file: Path) -> None:
    known = source(file)
    known.load()
    assert known.news() is None


def test_news_of_another_content_size_or_time(file: Path) -> None:
    known = source(file)
    known.load()
    file.write_text("server: {port: 22}\n")
    first = known.news()
    assert first is not None
    assert known.news() == first, "it is news until it is read"
    known.load()
    assert known.news() is None
    os.utime(file, ns=(1, 1))
    assert known.news() is not None


def test_news_of_a_file_replaced_by_one_of_the_same_size_and_time(file: Path, tmp_path: Path) -> None:
    known = source(file)
    known.load()
    status = file.stat()
    fresh = tmp_path / "fresh"
    fresh.write_text("server: {port: 9}\n")
    os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
    fresh.rename(file)
    assert known.news() is not None


def test_news_behind_a_link_that_was_moved(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c.yaml").write_text("server: {port: 1}\n")
    (tmp_path / "data").symlink_to("one")
    known = source(tmp_path / "data" / "c.yaml")
    known.load()
    (tmp_path / "fresh").symlink_to("two")
    (tmp_path / "fresh").rename(tmp_path / "data")
    assert known.news() is not None


def test_a_file_that_is_gone_empty_or_no_file_is_no_news(file: Path) -> None:
    known = source(file)
    known.load()
    file.write_text("")
    assert known.news() is None
    file.unlink()
    assert known.news() is None
    file.mkdir()
    assert known.news() is None


def test_what_was_refused_is_no_news_until_it_changes_again(file: Path) -> None:
    known = source(file)
    known.load()
    file.write_text("server: {prot: 1}\n")
    with pytest.raises(ConfigError):
        known.load()
    assert known.news() is None
    file.write_text("server: {port: 12}\n")
    assert known.news() is not None


def test_a_file_that_appears_where_there_was_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "c.yaml"
    monkeypatch.setattr("lexora_router.config.load.SEARCH", (place,))
    known = source(None)
    assert known.load().path is None
    assert known.news() is None
    place.write_text("server: {port: 1}\n")
    assert known.news() is not None
    assert known.load().path == place
