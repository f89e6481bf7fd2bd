"""Status files: what keepers write is what everybody reads."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from transom.cluster.records import EtlRecord
from transom.target.etl.transports.base import Address
from transom.target.etl.workers_status import (
    EtlStatus,
    WorkerStatus,
    forget_status,
    read_status,
    read_statuses,
    read_target,
    status_path,
    write_status,
)

WORKER = WorkerStatus(
    3, "running", launch_ns=7, address=Address(unix="/tmp/x/s"), pid=12, container="c0ffee", since=1.5, restarts=2
)
STATUS = EtlStatus("shout", (replace(WORKER, revision=2, state="stopped", address=None), WORKER))


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    assert read_target(tmp_path, "local", "shout") is None
    assert read_status(tmp_path, "shout") == {}
    write_status(tmp_path, "local", STATUS)
    write_status(tmp_path, "target-1", EtlStatus("shout"))
    write_status(tmp_path, "local", EtlStatus("other"))
    assert read_target(tmp_path, "local", "shout") == STATUS
    assert read_status(tmp_path, "shout") == {"local": STATUS, "target-1": EtlStatus("shout")}
    shown = read_statuses(tmp_path, "shout")
    assert [(each["target"], each["revision"], each["state"]) for each in shown] == [
        ("local", 2, "stopped"),
        ("local", 3, "running"),
    ]
    forget_status(tmp_path, "local", "shout")
    forget_status(tmp_path, "local", "shout")
    assert read_status(tmp_path, "shout").keys() == {"target-1"}


def test_a_new_file_is_seen_at_once_and_an_old_one_is_parsed_once(tmp_path: Path) -> None:
    write_status(tmp_path, "local", STATUS)
    assert read_target(tmp_path, "local", "shout") is read_target(tmp_path, "local", "shout")
    for n in range(50):  # faster than a file system's clock ticks
        write_status(tmp_path, "local", EtlStatus("shout", (replace(WORKER, restarts=n),)))
        status = read_target(tmp_path, "local", "shout")
        assert status is not None
        assert status.revisions[0].restarts == n
    assert os.listdir(status_path(tmp_path, "local", "shout").parent) == ["shout.json"]  # noqa: PTH208


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"etl": "x", "revisions": [{}]}', '{"etl": "x", "revisions": 5}']
)
def test_what_is_no_status_is_none(tmp_path: Path, text: str) -> None:
    path = status_path(tmp_path, "local", "shout")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert read_target(tmp_path, "local", "shout") is None
    with pytest.raises(ValueError):
        EtlStatus.from_json(text)


def test_fields_of_another_release_are_passed_over() -> None:
    text = '{"etl":"x","more":1,"revisions":[{"revision":1,"state":"idle","new":2,"address":{"port":5,"zone":"z"}}]}'
    assert EtlStatus.from_json(text) == EtlStatus("x", (WorkerStatus(1, "idle", address=Address(port=5)),))


def test_a_records_worker_is_that_of_its_revision_and_start() -> None:
    record = EtlRecord("shout", runtime="code", revision=3, launch_ns=7)
    assert STATUS.of(record) == WORKER
    assert STATUS.of(replace(record, launch_ns=8)) is None
    assert STATUS.of(replace(record, revision=4)) is None
    again = EtlStatus("shout", (WORKER, replace(WORKER, launch_ns=8, state="initializing")))
    assert again.of(record) == WORKER
