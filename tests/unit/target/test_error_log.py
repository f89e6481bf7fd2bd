from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from transom.target.etl.error_log import ErrorEntry, ErrorLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ErrorLog]:
    log = ErrorLog(tmp_path / "errors.sqlite", keep=3)
    yield log
    log.close()


def entry(etl: str = "thumb", key: str = "k", job: str = "") -> ErrorEntry:
    return ErrorEntry(etl, 12.5, "photos", key, "EtlFailed", "it broke", "decode>>thumb", job)


def test_what_is_kept_comes_back_whole_and_the_newest_first(log: ErrorLog) -> None:
    log.add(entry(key="a"))
    log.add(entry(key="b"))
    assert log.of_etl("thumb") == [entry(key="b"), entry(key="a")]
    assert log.of_etl("thumb", 1) == [entry(key="b")]
    assert log.of_etl("other") == []


def test_the_oldest_of_one_etl_give_way_and_no_others(log: ErrorLog) -> None:
    log.add(entry("other"))
    for n in range(10):
        log.add(entry(key=str(n)))
    assert [each.key for each in log.of_etl("thumb")] == ["9", "8", "7"]
    assert len(log.of_etl("other")) == 1


def test_many_are_kept_at_once_each_etl_bounded_for_itself(log: ErrorLog) -> None:
    log.add_many([entry(etl, str(n), "j1") for n in range(10) for etl in ("thumb", "other")])
    assert [each.key for each in log.of_etl("thumb")] == ["9", "8", "7"]
    assert [each.key for each in log.of_etl("other")] == ["9", "8", "7"]
    assert log.of_etl("other")[0].job == "j1"
    log.add_many([])
    assert len(log.of_etl("thumb")) == 3


def test_a_removed_etl_is_forgotten(log: ErrorLog) -> None:
    log.add(entry())
    log.forget("thumb")
    assert log.of_etl("thumb") == []


def test_time_is_now_unless_it_is_given(log: ErrorLog) -> None:
    log.add(ErrorEntry("thumb", 0.0, "b", "k", "EtlFailed", "m"))
    assert log.of_etl("thumb")[0].at_s > 1e9


def test_processes_share_it_and_it_outlives_them(tmp_path: Path, log: ErrorLog) -> None:
    script = (
        "import sys; from pathlib import Path; from transom.target.etl.error_log import ErrorEntry, ErrorLog\n"
        "log = ErrorLog(Path(sys.argv[1]))\n"
        "for n in range(50): log.add(ErrorEntry('thumb', 1.0, 'b', f'{sys.argv[2]}-{n}', 'EtlFailed', 'm'))\n"
    )
    path = str(tmp_path / "errors.sqlite")
    children = [subprocess.Popen([sys.executable, "-c", script, path, str(i)]) for i in range(2)]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
    assert len(log.of_etl("thumb", 1000)) == 100
