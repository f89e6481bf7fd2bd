from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from transom.cluster.stamp import Stamp
from transom.target.errors import JobBusy, NoSuchJob
from transom.target.jobs.catalog import JOBS, RECORDS, STAMP, UNREADABLE, JobCatalog
from transom.target.jobs.order import Order, Place
from transom.target.jobs.records import Counts, Outcome, Selected
from transom.target.jobs.worklist import Worklist

ORDER = Order(source=Place(bucket="in", path="a/"), destination=Place(bucket="out"), etl="a>>b", args=[1, None])
ORDERED = ORDER.model_copy(update={"keys": ("ä", "b")})


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[JobCatalog]:
    catalog = JobCatalog.open(tmp_path)
    yield catalog
    catalog.close()


def running(catalog: JobCatalog) -> str:
    job = catalog.add(ORDER, "ann")
    assert catalog.claim(job.id) is not None
    return job.id


def test_a_job_comes_back_as_it_was_asked_for_also_by_another_process(catalog: JobCatalog, tmp_path: Path) -> None:
    job = catalog.add(ORDER, "ann")
    assert catalog.get(job.id) == job
    assert (job.order, job.owner, job.state, job.runs) == (ORDER, "ann", "queued", 0)
    other = JobCatalog.open(tmp_path)
    assert list(other.list()) == [job]
    other.close()


def test_the_keys_of_an_order_are_told_to_who_runs_it_and_to_nobody_else(catalog: JobCatalog) -> None:
    job = catalog.add(ORDERED, "ann")
    assert catalog.get(job.id) == job
    assert (job.order.keys, job.keys) == ((), 2)
    begun = catalog.claim(job.id)
    assert begun is not None
    assert begun.order == ORDERED


def test_a_job_that_is_not_there_is_said_to_be_so(catalog: JobCatalog) -> None:
    for ask in (catalog.get, catalog.order_abort, catalog.retry, catalog.remove, catalog.errors):
        with pytest.raises(NoSuchJob, match="no job 'x'"):
            ask("x")
    assert catalog.claim("x") is None
    assert not catalog.abort_ordered("x")


@pytest.mark.parametrize("begun", [False, True])
def test_an_order_of_another_version_fails_its_own_job_and_no_other(
    catalog: JobCatalog, tmp_path: Path, begun: bool
) -> None:
    ended, waiting, fine = (catalog.add(ORDER, "ann") for _ in range(3))
    catalog.claim(ended.id)
    catalog.finish(ended.id, "done")
    if begun:
        catalog.claim(waiting.id)
    with sqlite3.connect(tmp_path / JOBS) as db:
        newer = '{"kind": "transform", "source": {"bucket": "in"}, "colour": "red"}'
        db.execute("UPDATE jobs SET asked = ? WHERE id <> ?", (newer, fine.id))
    db.close()
    other = JobCatalog.open(tmp_path)
    try:
        states = {job.id: (job.state, job.message) for job in other.list()}
        assert states == {
            ended.id: ("done", UNREADABLE),
            waiting.id: ("failed", UNREADABLE),
            fine.id: ("queued", ""),
        }
        assert [job.id for job in other.resumable()] == [fine.id]
        assert other.get(fine.id).order == ORDER
        other.remove(waiting.id)
    finally:
        other.close()


def test_a_job_runs_and_ends(catalog: JobCatalog) -> None:
    job = catalog.add(ORDER, "ann")
    begun = catalog.claim(job.id)
    assert begun is not None
    assert (begun.state, begun.runs) == ("running", 1)
    assert begun.started_s >= begun.created_s > 0
    catalog.progress(job.id, Counts(total=3, written=1), "transforming")
    seen = catalog.get(job.id)
    assert (seen.counts, seen.phase) == (Counts(total=3, written=1), "transforming")
    catalog.finish(job.id, "failed", Counts(total=3, written=2, failed=1), "x" * 10_000)
    ended = catalog.get(job.id)
    assert (ended.state, ended.counts.failed, ended.phase, len(ended.message)) == ("failed", 1, "", 4000)
    assert ended.ended_s >= ended.started_s
    assert catalog.claim(job.id) is None
    catalog.progress(job.id, Counts(), "late")
    catalog.finish(job.id, "done")
    assert catalog.get(job.id) == ended


def test_what_only_a_job_that_goes_on_needs_goes_with_its_end(catalog: JobCatalog) -> None:
    job_id = running(catalog)
    folder = catalog.folder_of(job_id)
    folder.mkdir(parents=True)
    for name in (RECORDS, f"{RECORDS}-journal", "other"):
        (folder / name).touch()
    catalog.finish(job_id, "failed")
    assert [path.name for path in folder.iterdir()] == ["other"]


def test_those_that_wait_or_were_begun_can_be_resumed_the_oldest_first(catalog: JobCatalog) -> None:
    first, second, third = (catalog.add(ORDER, "ann").id for _ in range(3))
    catalog.claim(first)
    catalog.claim(second)
    catalog.finish(second, "done")
    assert [job.id for job in catalog.resumable()] == [first, third]
    again = catalog.claim(first)
    assert again is not None
    assert again.runs == 2
    assert again.started_s == catalog.get(first).started_s


def test_a_waiting_job_is_aborted_at_once_and_a_running_one_is_told_to(catalog: JobCatalog) -> None:
    waiting = catalog.add(ORDER, "ann").id
    assert catalog.order_abort(waiting).state == "aborted"
    assert catalog.claim(waiting) is None
    job_id = running(catalog)
    assert not catalog.abort_ordered(job_id)
    assert catalog.order_abort(job_id).state == "running"
    assert catalog.abort_ordered(job_id)
    catalog.finish(job_id, "aborted")
    assert not catalog.abort_ordered(job_id)
    assert catalog.order_abort(job_id).state == "aborted"


def test_errors_are_tried_again_once_the_job_has_ended_and_there_are_any(catalog: JobCatalog) -> None:
    job_id = running(catalog)
    with pytest.raises(JobBusy, match="is running"):
        catalog.retry(job_id)
    catalog.finish(job_id, "done", Counts(total=2, written=1, failed=1))
    again = catalog.retry(job_id)
    assert (again.state, again.retries, again.ended_s) == ("queued", 1, 0)
    catalog.claim(job_id)
    catalog.finish(job_id, "done", Counts(total=2, written=2))
    with pytest.raises(JobBusy, match="failed on no object"):
        catalog.retry(job_id)


def test_a_jobs_errors_are_read_from_its_worklist(catalog: JobCatalog) -> None:
    job_id = running(catalog)
    assert list(catalog.errors(job_id)) == []
    with Worklist.open(catalog.folder_of(job_id)) as worklist:
        worklist.add(Selected(f"k{n}", 1, "e", f"d{n}") for n in range(3))
        worklist.note(Outcome(n, "failed", stage="a", code="EtlFailed", message="no") for n in (1, 3))
    assert [(error.key, error.n) for error in catalog.errors(job_id)] == [("k0", 1), ("k2", 3)]
    assert [error.key for error in catalog.errors(job_id, after=1)] == ["k2"]
    assert [error.key for error in catalog.errors(job_id, limit=1)] == ["k0"]


def test_only_an_ended_job_is_removed_and_its_folder_with_it(catalog: JobCatalog) -> None:
    job_id = running(catalog)
    Worklist.open(catalog.folder_of(job_id)).close()
    with pytest.raises(JobBusy, match="abort it"):
        catalog.remove(job_id)
    catalog.finish(job_id, "done")
    catalog.remove(job_id)
    assert not catalog.folder_of(job_id).exists()
    with pytest.raises(NoSuchJob):
        catalog.get(job_id)


def test_jobs_are_paged_the_newest_first(catalog: JobCatalog) -> None:
    assert catalog.page(None, 5) == ([], None)
    ids = [catalog.add(ORDER, "ann").id for _ in range(5)][::-1]
    first, before = catalog.page(None, 2)
    catalog.add(ORDER, "ann")  # what comes meanwhile moves nothing
    second, after = catalog.page(before, 3)
    assert [job.id for job in (*first, *second)] == ids
    assert after is None
    assert catalog.page(before, 2)[1] is not None


def test_jobs_that_ended_long_ago_are_forgotten(catalog: JobCatalog) -> None:
    before, after, waiting, running = (catalog.add(ORDER, "ann").id for _ in range(4))
    for each in (before, after, running):
        catalog.claim(each)
        catalog.folder_of(each).mkdir(parents=True)
    catalog.finish(before, "failed")
    between_s = catalog.get(before).ended_s + 1e-6
    catalog.finish(after, "done")
    catalog.forget(between_s)
    assert [job.id for job in catalog.list()] == [after, waiting, running]
    assert [catalog.folder_of(each).exists() for each in (before, after, running)] == [False, True, True]


def test_folders_of_jobs_that_are_gone_are_swept(catalog: JobCatalog) -> None:
    job_id = running(catalog)
    for name in (job_id, "gone"):
        Worklist.open(catalog.folder_of(name)).close()
    catalog.sweep()
    assert catalog.folder_of(job_id).exists()
    assert not catalog.folder_of("gone").exists()


def test_the_stamp_is_renewed_by_what_the_desk_must_see(catalog: JobCatalog, tmp_path: Path) -> None:
    stamp = Stamp(tmp_path / STAMP)
    job_id = ""

    def add() -> None:
        nonlocal job_id
        job_id = catalog.add(ORDER, "ann").id

    for change in (add, lambda: catalog.claim(job_id), lambda: catalog.order_abort(job_id)):
        stamp.note()
        change()
        assert not stamp.fresh()
    stamp.note()
    seen = stamp.look()
    catalog.progress(job_id, Counts(), "transforming")
    assert stamp.look() == seen
    stamp.close()


def test_threads_share_a_handle(catalog: JobCatalog) -> None:
    threads = [threading.Thread(target=lambda: [catalog.add(ORDER, "ann") for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job.id for job in catalog.list()}) == 40
