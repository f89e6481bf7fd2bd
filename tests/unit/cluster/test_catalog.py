import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from transom.cluster.catalog import Catalog
from transom.cluster.records import (
    BadRecord,
    CatalogError,
    EtlRecord,
    Exists,
    InUse,
    Missing,
    Snapshot,
    ViewRecord,
    check_etl_name,
)

SECOND_NS = 1_000_000_000
THUMB = EtlRecord("thumb", plugin="image", args={"width": 224}, concurrency=2, timeout_s=1.5, owner="alice")
VIEW = ViewRecord(
    "thumbs", "photos", ("thumb", "md5"), args=({"width": 1}, None), extensions=(("jpg", "webp"),), owner="alice"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


@pytest.fixture
def catalog(path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(path)
    yield catalog
    catalog.close()


@pytest.fixture
def other(path: Path, catalog: Catalog) -> Iterator[Catalog]:
    """Another process's handle on the same file."""
    other = Catalog.open(path)
    yield other
    other.close()


# --- ETLs -------------------------------------------------------------------------------------


def test_an_etl_reads_back_as_kept(catalog: Catalog, other: Catalog) -> None:
    kept, new = catalog.put_etl(THUMB)
    assert new
    assert kept == replace(THUMB, revision=1, changed_ns=kept.changed_ns)
    assert kept.changed_ns > 0
    assert other.etl("thumb") == kept
    with pytest.raises(Missing):
        other.etl("nothing")


def test_the_same_configuration_keeps_its_revision_and_another_gets_the_next(catalog: Catalog) -> None:
    first, _ = catalog.put_etl(THUMB)
    same, new = catalog.put_etl(replace(THUMB, owner="bob"))
    assert not new
    assert same == replace(first, owner="bob")
    changed, new = catalog.put_etl(replace(THUMB, args={"width": 100}))
    assert not new
    assert changed.revision == 2
    assert changed.changed_ns > first.changed_ns


def test_args_that_python_holds_equal_are_told_apart(catalog: Catalog) -> None:
    assert catalog.put_etl(replace(THUMB, args={"x": 1}))[0].revision == 1
    assert catalog.put_etl(replace(THUMB, args={"x": True}))[0].revision == 2
    assert catalog.put_etl(replace(THUMB, args={"x": 1.0}))[0].revision == 3


def test_args_keep_their_order_and_another_one_is_a_change(catalog: Catalog, other: Catalog) -> None:
    steps = {"resize": {}, "crop": {}}
    assert catalog.put_etl(replace(THUMB, args={"steps": steps}))[0].revision == 1
    assert list(other.etl("thumb").args["steps"]) == ["resize", "crop"]
    assert catalog.put_etl(replace(THUMB, args={"steps": dict(reversed(steps.items()))}))[0].revision == 2


def test_a_revision_is_never_used_twice(catalog: Catalog) -> None:
    catalog.put_etl(THUMB)
    catalog.remove_etl("thumb")
    again, new = catalog.put_etl(THUMB)
    assert new
    assert again.revision == 2


def test_an_etl_that_must_be_new_is_refused_if_it_is_not(catalog: Catalog) -> None:
    catalog.put_etl(THUMB, must_be_new=True)
    with pytest.raises(Exists):
        catalog.put_etl(replace(THUMB, args={}), must_be_new=True)
    assert catalog.etl("thumb").args == {"width": 224}


def test_state_changes_leave_the_revision_and_changes_leave_the_state(catalog: Catalog) -> None:
    first, _ = catalog.put_etl(THUMB)
    assert catalog.put_state("thumb", "stopped") == replace(first, state="stopped")
    assert catalog.put_etl(replace(THUMB, args={}))[0].state == "stopped"
    assert catalog.put_state("thumb", "running").state == "running"


def test_an_implicit_etl_can_be_stopped_and_started(catalog: Catalog, other: Catalog) -> None:
    catalog.put_state("md5", "stopped")
    assert other.etl("md5") == EtlRecord("md5", plugin="md5", kind="implicit", state="stopped")
    other.put_state("md5", "running")
    assert catalog.etl("md5").state == "running"
    with pytest.raises(Missing, match="stopped, not removed"):
        catalog.remove_etl("md5")


def test_an_explicit_etl_takes_the_place_of_an_implicit_one(catalog: Catalog) -> None:
    catalog.put_state("md5", "stopped")
    kept, new = catalog.put_etl(EtlRecord("md5", plugin="hash"), must_be_new=True)
    assert new
    assert (kept.kind, kept.state, kept.revision) == ("explicit", "running", 1)


def test_an_etl_in_a_view_cannot_be_removed(catalog: Catalog) -> None:
    catalog.put_etl(THUMB)
    catalog.put_view(VIEW)
    with pytest.raises(InUse, match="thumbs"):
        catalog.remove_etl("thumb")
    catalog.remove_view("thumbs")
    catalog.remove_etl("thumb")
    with pytest.raises(Missing):
        catalog.remove_etl("thumb")


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "x" * 32])
def test_good_etl_names(name: str) -> None:
    check_etl_name(name)


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a--b", "x" * 33, "a.b", "a b", "a\n", "é"])
def test_bad_etl_names(catalog: Catalog, name: str) -> None:
    with pytest.raises(BadRecord):
        check_etl_name(name)
    with pytest.raises(BadRecord):
        catalog.put_etl(replace(THUMB, name=name))
    with pytest.raises(BadRecord):
        catalog.put_state(name, "stopped")


@pytest.mark.parametrize(
    "fields",
    [
        {"plugin": ""},
        {"concurrency": 0},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"timeout_s": float("inf")},
        {"state": "tired"},
        {"args": {"x": float("nan")}},
        {"args": {"x": object()}},
    ],
)
def test_a_bad_etl_is_refused_and_leaves_nothing(catalog: Catalog, fields: dict[str, object]) -> None:
    with pytest.raises(BadRecord):
        catalog.put_etl(replace(THUMB, **fields))  # type: ignore[arg-type]
    assert not catalog.snapshot().etls


# --- views ------------------------------------------------------------------------------------


def test_a_view_reads_back_as_kept_and_keeps_its_creation_time(catalog: Catalog, other: Catalog) -> None:
    kept, new = catalog.put_view(VIEW)
    assert new
    assert kept == replace(VIEW, created_ns=kept.created_ns)
    assert other.view("thumbs") == kept
    changed, new = other.put_view(replace(VIEW, sizes="materialise"))
    assert not new
    assert catalog.view("thumbs") == changed == replace(kept, sizes="materialise")


def test_a_view_that_must_be_new_is_refused_if_it_is_not(catalog: Catalog) -> None:
    catalog.put_view(VIEW, must_be_new=True)
    with pytest.raises(Exists):
        catalog.put_view(VIEW, must_be_new=True)


def test_a_views_stages_must_exist(catalog: Catalog) -> None:
    with pytest.raises(Missing, match="thumb"):
        catalog.put_view(VIEW, implicit=["md5"])
    catalog.put_etl(THUMB)
    catalog.put_view(VIEW, implicit=["md5"])


def test_a_removed_view_is_missing(catalog: Catalog) -> None:
    catalog.put_view(VIEW)
    catalog.remove_view("thumbs")
    with pytest.raises(Missing):
        catalog.view("thumbs")
    with pytest.raises(Missing):
        catalog.remove_view("thumbs")


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "a--etl--b"},
        {"name": "-"},
        {"name": "Thumbs"},
        {"name": "a/b"},
        {"name": "photos"},
        {"bucket": ""},
        {"pipeline": ()},
        {"pipeline": ("Bad",)},
        {"args": (None,)},
        {"args": (object(), None)},
        {"sizes": "guess"},
        {"extensions": (("jpg", "webp"), ("png", "webp"))},
        {"extensions": (("jpg", "webp"), ("jpg", "png"))},
        {"extensions": (("", "webp"),)},
        {"extensions": (("jpg", "a/b"),)},
        {"extensions": (("tar.gz", "tgz"),)},
        {"extensions": (("jpg", "small.webp"),)},
    ],
)
def test_a_bad_view_is_refused(catalog: Catalog, fields: dict[str, object]) -> None:
    with pytest.raises(BadRecord):
        catalog.put_view(replace(VIEW, **fields))  # type: ignore[arg-type]
    assert not catalog.snapshot().views


# --- circuits ---------------------------------------------------------------------------------


def test_a_circuit_opens_after_failures_in_a_row_and_closes_on_success(catalog: Catalog, other: Catalog) -> None:
    for catalog_of_a_process in (catalog, other):
        circuit = catalog_of_a_process.record_failure("md5", threshold=3, open_for_ns=SECOND_NS, now_ns=100)
        assert not circuit.is_open(100)
    circuit = catalog.record_failure("md5", threshold=3, open_for_ns=SECOND_NS, now_ns=100)
    assert other.snapshot().circuits["md5"] == circuit
    assert circuit.is_open(100)
    assert not circuit.is_open(100 + SECOND_NS)
    # Half open: one more failure opens it again at once.
    assert catalog.record_failure("md5", threshold=3, open_for_ns=SECOND_NS, now_ns=2 * SECOND_NS).is_open(
        2 * SECOND_NS
    )
    other.record_success("md5")
    assert "md5" not in catalog.snapshot().circuits


@pytest.mark.parametrize("mend", ["start", "change"])
def test_starting_or_changing_an_etl_closes_its_circuit(catalog: Catalog, mend: str) -> None:
    catalog.put_etl(THUMB)
    catalog.record_failure("thumb", threshold=1, open_for_ns=SECOND_NS)
    if mend == "start":
        catalog.put_state("thumb", "running")
    else:
        catalog.put_etl(replace(THUMB, args={}))
    assert not catalog.snapshot().circuits


def test_a_failure_leaves_the_snapshot_of_etls_alone(catalog: Catalog) -> None:
    catalog.put_etl(THUMB)
    before = catalog.snapshot()
    catalog.record_failure("thumb", threshold=1, open_for_ns=SECOND_NS)
    after = catalog.snapshot()
    assert after.version == before.version
    assert after.etls is before.etls


# --- sharing ----------------------------------------------------------------------------------


def test_the_snapshot_is_the_same_object_until_something_changes(catalog: Catalog, other: Catalog) -> None:
    first = catalog.snapshot()
    assert catalog.snapshot() is first
    other.put_etl(THUMB)
    second = catalog.snapshot()
    assert second.version > first.version
    assert second.etls.keys() == {"thumb"}
    assert catalog.snapshot() is second
    assert not first.etls
    with pytest.raises(TypeError):
        second.etls["x"] = THUMB  # type: ignore[index]


def test_a_thread_is_not_given_the_old_snapshot_while_another_reads_the_new(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.snapshot()
    read, reading, go_on = catalog._load, threading.Event(), threading.Event()

    def slow() -> Snapshot:
        reading.set()
        assert go_on.wait(10)
        return read()

    monkeypatch.setattr(catalog, "_load", slow)
    catalog.put_etl(THUMB)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(catalog.snapshot)
        assert reading.wait(10)
        second = pool.submit(catalog.snapshot)
        with pytest.raises(TimeoutError):
            second.result(0.1)
        go_on.set()
        assert first.result(10).etls.keys() == second.result(10).etls.keys() == {"thumb"}


def test_a_snapshot_does_not_wait_for_a_write_under_way(path: Path, catalog: Catalog) -> None:
    catalog.put_etl(THUMB)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    writer = threading.Thread(target=catalog.put_state, args=("thumb", "stopped"))
    writer.start()
    assert catalog.snapshot().etls["thumb"].state == "running"
    assert writer.is_alive()
    blocker.execute("ROLLBACK")
    blocker.close()
    writer.join()
    assert catalog.snapshot().etls["thumb"].state == "stopped"


def _change_often(path: Path, start, names: list[str], rounds: int) -> None:  # type: ignore[no-untyped-def]
    start.wait()
    catalog = Catalog.open(path)
    for n in range(rounds):
        for name in names:
            catalog.put_etl(EtlRecord(name, plugin="image", args={"by": names[0], "n": n}))
            if n % 3 == 0:
                catalog.record_failure("shared", threshold=1000, open_for_ns=1)
    catalog.close()


def test_processes_share_one_catalog_and_lose_no_change(path: Path) -> None:
    context = get_context("spawn")
    start = context.Event()
    workers = [
        context.Process(target=_change_often, args=(path, start, [f"own-{number}", "shared"], 12))
        for number in range(3)
    ]
    for worker in workers:
        worker.start()
    start.set()  # three processes make the new file at once
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    catalog = Catalog.open(path)
    snapshot = catalog.snapshot()
    assert snapshot.version == 3 * 12 * 2
    assert {name: record.revision for name, record in snapshot.etls.items()} == {
        "own-0": 12,
        "own-1": 12,
        "own-2": 12,
        "shared": 36,
    }
    catalog.close()


def test_a_catalog_survives_being_closed(path: Path) -> None:
    catalog = Catalog.open(path)
    catalog.put_etl(THUMB)
    catalog.put_view(VIEW)
    before = catalog.snapshot()
    catalog.close()
    again = Catalog.open(path)
    assert again.snapshot() == before
    again.close()


def test_a_file_of_a_newer_release_is_refused(path: Path) -> None:
    Catalog.open(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(CatalogError, match="newer release"):
        Catalog.open(path)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(CatalogError, match="can't be used"):
        Catalog.open(path)
