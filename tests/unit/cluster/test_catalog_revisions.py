"""How an ETL that a worker serves is started, changed and given up: what the catalog says at every step."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from transom.cluster.catalog import Catalog
from transom.cluster.records import BadRecord, EtlRecord, Exists, Missing
from transom.cluster.schema import SCHEMA_VERSION

CODE = EtlRecord("shout", runtime="code", spec={"name": "shout", "runtime": {"code": "1"}}, owner="alice")
OTHER = replace(CODE, spec={"name": "shout", "runtime": {"code": "2"}})
PIPE = EtlRecord("cat", runtime="command", spec={"communication": "io://"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


@pytest.fixture
def catalog(path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(path)
    yield catalog
    catalog.close()


@pytest.fixture
def running(catalog: Catalog) -> EtlRecord:
    """An ETL of code whose first revision runs."""
    kept, _ = catalog.propose(CODE)
    return catalog.promote("shout", kept.revision)


@pytest.mark.parametrize(
    ("record", "served"),
    [
        (EtlRecord("a", plugin="image"), False),
        (EtlRecord("a", plugin="image", runtime="process"), False),
        (CODE, True),
        (PIPE, False),
        (EtlRecord("a", runtime="command"), False),
        (EtlRecord("a", runtime="command", spec={"communication": "ws://"}), True),
        (EtlRecord("a", runtime="container"), True),
        (EtlRecord("a", runtime="url"), False),
    ],
)
def test_what_a_keeper_keeps_a_worker_for(record: EtlRecord, served: bool) -> None:
    assert record.served is served
    for state, wanted in (("initializing", True), ("running", True), ("stopped", False), ("failed", False)):
        assert replace(record, state=state).wants_worker is (served and wanted)  # type: ignore[arg-type]


def test_a_new_etl_is_starting_until_it_is_promoted(catalog: Catalog) -> None:
    kept, new = catalog.propose(CODE)
    assert new
    assert (kept.state, kept.revision, kept.owner) == ("initializing", 1, "alice")
    assert kept.launch_ns > 0
    assert catalog.etl("shout") == kept
    assert not catalog.snapshot().pending
    assert catalog.promote("shout", 1) == catalog.etl("shout") == replace(kept, state="running")
    assert catalog.promote("shout", 1).state == "running"  # whoever comes second changes nothing


def test_a_record_with_its_spec_reads_back_in_order(catalog: Catalog) -> None:
    steps = {"b": 1, "a": {"d": [1, None], "c": "ü"}}
    kept, _ = catalog.propose(replace(CODE, spec={"args": steps}))
    read = catalog.etl("shout")
    assert read == kept
    assert list(read.spec["args"]) == ["b", "a"]


def test_one_that_needs_no_start_runs_at_once(catalog: Catalog) -> None:
    kept, new = catalog.propose(PIPE)
    assert new
    assert (kept.state, kept.runtime, kept.spec, kept.launch_ns) == ("running", "command", PIPE.spec, 0)


def test_one_that_is_known_not_to_start_has_failed_at_once(catalog: Catalog) -> None:
    kept, new = catalog.propose(PIPE, problem="there is no program")
    assert new
    assert (kept.state, kept.message, kept.revision) == ("failed", "there is no program", 1)
    assert catalog.etl("cat") == kept
    again, new = catalog.propose(PIPE, problem="there is none still")
    assert (new, again.state, again.message, again.revision) == (False, "failed", "there is none still", 1)
    assert catalog.etl("cat") == again
    well, _ = catalog.propose(PIPE)  # the same, now that there is one
    assert (well.state, well.message, well.revision) == ("running", "", 1)
    assert catalog.etl("cat") == well
    for problem, state in (("gone", "failed"), ("", "running")):
        assert catalog.propose(PIPE, problem=problem)[0].state == catalog.etl("cat").state == state


def test_a_change_that_is_known_not_to_start_leaves_what_serves(catalog: Catalog) -> None:
    before, _ = catalog.propose(PIPE)
    other = replace(PIPE, spec={**PIPE.spec, "cache": False})
    kept, new = catalog.propose(other, problem="there is no program")
    assert (new, kept.state, kept.message, kept.revision) == (False, "failed", "there is no program", 2)
    assert catalog.etl("cat") == replace(before, message="revision 2 failed: there is no program")
    assert not catalog.snapshot().pending
    changed, _ = catalog.propose(other)
    assert (changed.state, changed.revision, changed.message) == ("running", 3, "")
    assert catalog.etl("cat") == changed
    with pytest.raises(Exists):
        catalog.propose(other, must_be_new=True, problem="there is no program")


def test_a_change_that_is_known_not_to_start_leaves_another_that_is_starting(catalog: Catalog) -> None:
    catalog.propose(PIPE)
    starting, _ = catalog.propose(replace(CODE, name="cat"))
    other = replace(PIPE, spec={**PIPE.spec, "cache": False})
    assert catalog.propose(other, problem="there is no program")[0].state == "failed"
    assert catalog.snapshot().pending == {"cat": starting}
    assert catalog.promote("cat", starting.revision).state == "running"


def test_one_that_failed_and_is_told_to_start_begins_with_a_closed_circuit(catalog: Catalog) -> None:
    catalog.propose(CODE)
    catalog.record_failure("shout", threshold=1, open_for_ns=10**12)
    catalog.fail("shout", 1, "it was killed")
    catalog.propose(CODE)
    assert not catalog.snapshot().circuits


def test_a_stopped_one_that_is_known_not_to_start_stays_stopped(catalog: Catalog) -> None:
    catalog.propose(PIPE)
    catalog.put_state("cat", "stopped")
    kept, _ = catalog.propose(PIPE, problem="there is no program")
    assert (kept.state, kept.message, catalog.etl("cat")) == ("stopped", "", kept)


def test_a_change_is_pending_beside_what_serves(catalog: Catalog, running: EtlRecord) -> None:
    kept, new = catalog.propose(OTHER)
    assert not new
    assert (kept.state, kept.revision) == ("initializing", 2)
    assert catalog.etl("shout") == running
    assert catalog.snapshot().pending == {"shout": kept}
    assert catalog.propose(OTHER)[0] == kept  # asked for again, it is the same
    promoted = catalog.promote("shout", 2)
    assert (promoted.state, promoted.spec, promoted.revision) == ("running", OTHER.spec, 2)
    assert promoted.changed_ns > kept.changed_ns  # from now on results are of this revision
    assert catalog.etl("shout") == promoted
    assert not catalog.snapshot().pending


def test_a_pending_change_that_fails_leaves_what_serves_and_says_why(catalog: Catalog, running: EtlRecord) -> None:
    catalog.propose(OTHER)
    failed = catalog.fail("shout", 2, "no module named x")
    assert failed == catalog.etl("shout") == replace(running, message="revision 2 failed: no module named x")
    assert failed.failure_of(2) == "no module named x"
    assert failed.failure_of(3) is None
    assert not catalog.snapshot().pending
    with pytest.raises(Missing, match="replaced"):
        catalog.promote("shout", 2)
    kept, _ = catalog.propose(OTHER)
    assert kept.revision == 3
    assert catalog.promote("shout", 3).message == ""


def test_a_newer_change_takes_the_place_of_a_pending_one(catalog: Catalog, running: EtlRecord) -> None:
    catalog.propose(OTHER)
    catalog.propose(replace(CODE, spec={}))
    assert catalog.snapshot().pending["shout"].revision == 3
    for decide in (lambda: catalog.promote("shout", 2), lambda: catalog.fail("shout", 2, "late")):
        with pytest.raises(Missing):
            decide()


def test_back_to_what_runs_forgets_what_was_pending(catalog: Catalog, running: EtlRecord) -> None:
    catalog.propose(OTHER)
    kept, new = catalog.propose(CODE)
    assert (kept, new) == (running, False)
    assert not catalog.snapshot().pending


def test_a_plugin_takes_the_place_of_a_worker_at_once(catalog: Catalog, running: EtlRecord) -> None:
    catalog.propose(OTHER)
    kept, new = catalog.put_etl(EtlRecord("shout", plugin="upper"))
    assert (kept.state, kept.runtime, kept.revision, new) == ("running", "plugin", 3, False)
    assert not catalog.snapshot().pending
    back, _ = catalog.propose(CODE)
    assert (back.state, catalog.etl("shout").runtime) == ("initializing", "plugin")


def test_a_first_revision_that_fails_can_be_started_again_or_changed(catalog: Catalog) -> None:
    kept, _ = catalog.propose(CODE)
    failed = catalog.fail("shout", 1, "w" * 5000)
    assert (failed.state, len(failed.message)) == ("failed", 2000)
    again, _ = catalog.propose(CODE)
    assert (again.state, again.revision, again.message) == ("initializing", 1, "")
    assert again.launch_ns > kept.launch_ns  # what its last worker said is not about this one
    changed, _ = catalog.propose(OTHER)
    assert (changed.state, changed.revision) == ("initializing", 2)
    with pytest.raises(Missing):
        catalog.fail("shout", 1, "late")


def test_stop_and_start(catalog: Catalog, running: EtlRecord) -> None:
    catalog.propose(OTHER)
    assert catalog.put_state("shout", "stopped").state == "stopped"
    assert not catalog.snapshot().pending
    assert catalog.fail("shout", 1, "it was killed").state == "stopped"  # nobody cares any more
    changed, _ = catalog.propose(OTHER)
    assert (changed.state, changed.revision) == ("stopped", 3)
    started = catalog.put_state("shout", "running")
    assert (started.state, started.revision) == ("initializing", 3)
    assert started.launch_ns > changed.launch_ns
    assert catalog.put_state("shout", "running") == started  # it is starting already
    assert catalog.promote("shout", 3).state == "running"
    assert catalog.put_state("shout", "running").launch_ns == started.launch_ns


def test_a_restart_goes_on_serving_with_another_launch(catalog: Catalog, running: EtlRecord) -> None:
    again = catalog.restart("shout")
    assert again == replace(running, launch_ns=again.launch_ns)
    assert again.launch_ns > running.launch_ns
    catalog.fail("shout", 1, "gone")
    assert catalog.restart("shout").state == "initializing"
    assert catalog.restart("md5") == EtlRecord("md5", plugin="md5", kind="implicit")


def test_what_was_judged_of_one_start_says_nothing_of_the_next(catalog: Catalog) -> None:
    """Of two that look at a start, one may decide when somebody has told it to start anew already."""
    first, _ = catalog.propose(CODE)
    catalog.fail("shout", 1, "no room")
    again, _ = catalog.propose(CODE)
    with pytest.raises(Missing):
        catalog.fail("shout", 1, "no room", first.launch_ns)
    with pytest.raises(Missing):
        catalog.promote("shout", 1, first.launch_ns)
    assert catalog.etl("shout") == again
    assert catalog.promote("shout", 1, again.launch_ns).state == "running"


def test_programs_that_serving_processes_keep_have_another_launch_too(catalog: Catalog) -> None:
    kept, _ = catalog.propose(replace(PIPE, spec={**PIPE.spec, "io": "persistent"}))
    first = catalog.restart(PIPE.name)
    assert first == replace(kept, launch_ns=first.launch_ns)
    catalog.put_state(PIPE.name, "stopped")
    started = catalog.put_state(PIPE.name, "running")
    assert (started.state, started.revision) == ("running", kept.revision)
    assert started.launch_ns > first.launch_ns > kept.launch_ns
    assert catalog.put_state(PIPE.name, "running") == started  # it does already


def test_a_failure_of_what_runs_is_told(catalog: Catalog, running: EtlRecord) -> None:
    failed = catalog.fail("shout", 1, "killed by signal 9")
    assert (failed.state, failed.message) == ("failed", "killed by signal 9")


def test_removing_forgets_what_was_pending(catalog: Catalog, running: EtlRecord) -> None:
    catalog.propose(OTHER)
    catalog.remove_etl("shout")
    assert not catalog.snapshot().pending
    for decide in (lambda: catalog.promote("shout", 2), lambda: catalog.fail("shout", 1, "late")):
        with pytest.raises(Missing):
            decide()


def test_what_must_be_new_and_what_is_no_record(catalog: Catalog, running: EtlRecord) -> None:
    with pytest.raises(Exists):
        catalog.propose(OTHER, must_be_new=True)
    for fields in ({"runtime": "moon"}, {"spec": {"x": float("nan")}}, {"runtime": "process"}, {"name": "A"}):
        changes: dict[str, Any] = fields
        with pytest.raises(BadRecord):
            catalog.propose(replace(OTHER, **changes))
    with pytest.raises(BadRecord, match="running or stopped"):
        catalog.put_state("shout", "failed")  # type: ignore[arg-type]
    assert catalog.etl("shout") == running


# --- files of older releases ------------------------------------------------------------------

_FIRST_RELEASE = """
CREATE TABLE etls (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, plugin TEXT NOT NULL, args TEXT NOT NULL, deterministic INTEGER,
    cache INTEGER NOT NULL, concurrency INTEGER, timeout_s REAL, state TEXT NOT NULL, owner TEXT NOT NULL,
    revision INTEGER NOT NULL, changed_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE revisions (name TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE views (
    name TEXT PRIMARY KEY, bucket TEXT NOT NULL, pipeline TEXT NOT NULL, args TEXT NOT NULL, extensions TEXT NOT NULL,
    sizes TEXT NOT NULL, owner TEXT NOT NULL, created_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE circuits (
    etl TEXT PRIMARY KEY, failures INTEGER NOT NULL, opened_until_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE changes (version INTEGER NOT NULL);
INSERT INTO changes VALUES (7);
INSERT INTO etls VALUES ('thumb', 'explicit', 'image', '{"width":224}', NULL, 1, 2, 1.5, 'stopped', 'alice', 4, 99);
INSERT INTO revisions VALUES ('thumb', 4);
INSERT INTO views VALUES ('thumbs', 'photos', '["thumb"]', '[]', '[]', 'source', 'alice', 98);
PRAGMA user_version = 1;
"""


def test_a_file_of_the_first_release_goes_on(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript(_FIRST_RELEASE)
    db.close()
    for _ in range(2):  # and once brought up to date it stays so
        catalog = Catalog.open(path)
        snapshot = catalog.snapshot()
        assert snapshot.version == 7
        assert snapshot.etls == {
            "thumb": EtlRecord(
                "thumb", "image", {"width": 224}, concurrency=2, timeout_s=1.5, state="stopped", owner="alice",
                revision=4, changed_ns=99,
            )
        }  # fmt: skip
        assert not snapshot.pending
        assert snapshot.views["thumbs"].pipeline == ("thumb",)
        catalog.close()
    catalog = Catalog.open(path)
    assert catalog.propose(replace(CODE, name="thumb"))[0].revision == 5
    catalog.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    db.close()


def test_a_file_that_can_not_be_brought_up_to_date_stays_as_it_was(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript(_FIRST_RELEASE + "CREATE TABLE pending (x);")
    db.close()
    with pytest.raises(Exception, match="can't be used"):
        Catalog.open(path)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert "runtime" not in [row[1] for row in db.execute("PRAGMA table_info(etls)")]
    db.close()
