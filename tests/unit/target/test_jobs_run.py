"""One job from its claim to its end, with an engine that does all in the test's own thread."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.target.job_site import LIMITS, PLAIN
from transom.cluster.catalog import Catalog
from transom.cluster.records import CatalogError, ViewRecord
from transom.plugins.manager import Transformers
from transom.target.errors import ReadOnlyStore, StoreFull
from transom.target.etl.metrics import EtlMetrics
from transom.target.etl.pipeline import Pipelines
from transom.target.etl.workers import WorkerPool
from transom.target.jobs.catalog import JOBS, JobCatalog
from transom.target.jobs.engines.base import Engine, EngineUnavailable, Finished, Opener, R, T, Work
from transom.target.jobs.order import Order
from transom.target.jobs.records import Job, Selected
from transom.target.jobs.run import SCRATCH, RunSettings, run_job
from transom.target.jobs.site import Site
from transom.target.jobs.worklist import WORKLIST, Worklist
from transom.target.store.base import Bucket, ObjectInfo, Whole
from transom.target.store.local import LocalStore


class Here(Engine):
    """Does every task at once, where it is asked for. `between` is called after each."""

    def __init__(self, opener: Opener, between: Callable[[], None]) -> None:
        self._site = opener()
        self._between = between

    @property
    def cores(self) -> int:
        return 1

    def run(
        self, work: Work[T, R], tasks: Iterable[T], *, width: int, look: Callable[[], None] | None = None
    ) -> Generator[Finished[T, R], None, None]:
        for task in tasks:
            yield Finished(task, work(self._site, task))
            self._between()

    def close(self) -> None:
        self._site.close()


class Full(LocalStore):
    """A store on a full disk."""

    async def put_many(self, bucket: str, objects: Any) -> list[ObjectInfo | Exception]:
        return [StoreFull("The disk is full.") for _ in objects]


class Barred(LocalStore):
    """A store that takes no writes."""

    async def put_many(self, bucket: str, objects: Any) -> list[ObjectInfo | Exception]:
        return [ReadOnlyStore(f"{bucket} takes no writes") for _ in objects]


class Beaten(LocalStore):
    """A store in which somebody else makes every bucket a moment earlier."""

    async def create_bucket(self, name: str, *, owner: str, acl: str = "private") -> Bucket:
        await super().create_bucket(name, owner="bob")
        return await super().create_bucket(name, owner=owner, acl=acl)


@dataclass
class Bench:
    """A data folder in which jobs are run."""

    folder: Path
    transformers: Transformers
    jobs: JobCatalog
    store: type[LocalStore] = LocalStore
    between: Callable[[], None] = lambda: None
    broken: Exception | None = None
    opened: list[Path] = field(default_factory=list)

    def site(self, scratch: Path) -> Site:
        if self.broken is not None:
            raise self.broken
        self.opened.append(scratch)
        pipelines = Pipelines(self.transformers, WorkerPool(scratch), LIMITS, EtlMetrics())
        return Site(self.store.at(self.folder / "store"), pipelines, scratch)

    def fill(self, count: int) -> None:
        with closing(self.site(self.folder)) as site:
            site.wait(site.store.create_bucket("src", owner="ann"))
            objects = [Whole(f"k{n}", b"text", PLAIN) for n in range(count)]
            assert all(
                isinstance(made, ObjectInfo) for made in site.wait(LocalStore.put_many(site.store, "src", objects))
            )

    def run(self, etl: str = "upper", **asked: Any) -> Job:
        job = self.jobs.add(Order(source="s3://src", destination="s3://dst", etl=etl, **asked), "ann")
        return self.again(job)

    def again(self, job: Job, engine: Callable[[Opener, Job], Engine] | None = None) -> Job:
        made = engine or (lambda opener, _: Here(opener, self.between))
        run_job(RunSettings(self.folder, self.folder / "catalog.sqlite", self.site, {"local": made}), job)
        return self.jobs.get(job.id)

    def put(self, key: str) -> None:
        with closing(self.site(self.folder)) as site:
            site.wait(LocalStore.put_many(site.store, "src", [Whole(key, b"text", PLAIN)]))

    def delete(self, bucket: str, key: str) -> None:
        with closing(self.site(self.folder)) as site:
            site.wait(site.store.delete(bucket, key))

    def buckets(self) -> list[str]:
        with closing(self.site(self.folder)) as site:
            return [bucket.name for bucket in site.wait(site.store.buckets())]

    def keys(self) -> list[str]:
        with closing(self.site(self.folder)) as site:
            return [info.key for info in site.wait(site.store.list_objects("dst")).objects]


@pytest.fixture
def bench(tmp_path: Path, transformers: Transformers, catalog: Catalog) -> Iterator[Bench]:
    assert not catalog.snapshot().etls
    with closing(JobCatalog.open(tmp_path)) as jobs:
        bench = Bench(tmp_path, transformers, jobs)
        bench.fill(3)
        yield bench


def test_a_job_is_done_and_cleans_up_behind_it(bench: Bench) -> None:
    job = bench.run()
    assert (job.state, job.counts.total, job.counts.written, job.phase, job.runs) == ("done", 3, 3, "", 1)
    assert bench.keys() == ["k0", "k1", "k2"]
    folder = bench.jobs.folder_of(job.id)
    assert bench.opened[-2] == folder / SCRATCH
    assert not (folder / SCRATCH).exists()


def test_one_that_ended_is_not_run(bench: Bench) -> None:
    job = bench.jobs.add(Order(source="s3://src", destination="s3://dst", etl="upper"), "ann")
    bench.jobs.order_abort(job.id)
    assert bench.again(job).state == "aborted"
    assert bench.again(job).runs == 0


def test_a_run_goes_on_where_the_one_before_it_was_cut_off(bench: Bench) -> None:
    job = bench.jobs.add(Order(source="s3://src", destination="s3://dst", etl="upper", force=True), "ann")

    def cut_off() -> None:
        raise KeyboardInterrupt  # nothing catches it: as if the process had died

    bench.between = cut_off
    with pytest.raises(KeyboardInterrupt):
        bench.again(job)
    with Worklist.open(bench.jobs.folder_of(job.id)) as worklist:
        assert worklist.sealed
        done = worklist.counts().written
        assert 0 < done < 3
    bench.between = lambda: None
    ended = bench.again(job)
    assert (ended.state, ended.counts.written, ended.runs) == ("done", 3, 2)


def test_a_list_that_is_not_whole_is_made_anew(bench: Bench) -> None:
    job = bench.jobs.add(Order(source="s3://src", destination="s3://dst", etl="upper"), "ann")
    with Worklist.open(bench.jobs.folder_of(job.id)) as worklist:
        worklist.add([Selected("stray", 1, "e", "k0")])
    ended = bench.again(job)
    assert (ended.state, ended.counts.total, ended.counts.failed) == ("done", 3, 0)


@pytest.mark.parametrize("bucket", ["src", "dst"])
def test_a_bucket_that_is_somebody_elses_by_the_time_it_runs_is_left_alone(bench: Bench, bucket: str) -> None:
    job = bench.jobs.add(Order(source="s3://src", destination="s3://dst", etl="upper"), "ann")
    with closing(bench.site(bench.folder)) as site:
        if bucket == "src":
            for n in range(3):
                site.wait(site.store.delete("src", f"k{n}"))
            site.wait(site.store.delete_bucket("src"))
        site.wait(site.store.create_bucket(bucket, owner="bob"))
    ended = bench.again(job)
    assert (ended.state, ended.counts.written) == ("failed", 0)
    assert f"'{bucket}' is somebody else's" in ended.message


def test_a_bucket_that_somebody_else_makes_meanwhile_is_left_alone(bench: Bench) -> None:
    bench.store = Beaten
    job = bench.run()
    assert (job.state, job.counts.written) == ("failed", 0)
    assert "'dst' is somebody else's" in job.message


def test_no_bucket_is_made_where_a_view_is_by_now(bench: Bench, catalog: Catalog) -> None:
    catalog.put_view(ViewRecord("dst", "src", ("upper",)))
    job = bench.run()
    assert (job.state, job.message) == ("failed", "'dst' is a view by now: it takes no writes. Name a bucket")
    assert bench.buckets() == ["src"]


def test_a_full_disk_ends_the_job_and_says_what_to_do(bench: Bench) -> None:
    bench.store = Full
    job = bench.run()
    assert job.state == "failed"
    assert "The disk is full. Make room, and start the same job anew" in job.message
    bench.store = LocalStore
    assert bench.run().counts.written == 3


@pytest.mark.parametrize("bucket", ["src", "dst"])
def test_a_bucket_that_is_deleted_meanwhile_ends_the_job_and_is_named(bench: Bench, bucket: str) -> None:
    """The other objects are not tried one after the other, each to fail likewise."""
    with closing(bench.site(bench.folder)) as site:
        site.wait(LocalStore.put_many(site.store, "src", [Whole(f"more{n:03}", b"x", PLAIN) for n in range(300)]))

    def delete() -> None:
        bench.between = lambda: None
        with closing(bench.site(bench.folder)) as site:
            for info in site.wait(site.store.list_objects(bucket)).objects:
                site.wait(site.store.delete(bucket, info.key))
            site.wait(site.store.delete_bucket(bucket))

    bench.between = delete
    job = bench.run()
    assert (job.state, f"no bucket {bucket}" in job.message) == ("failed", True)
    assert job.counts.done < 303


def test_a_destination_that_takes_no_writes_ends_the_job_and_is_named(bench: Bench) -> None:
    bench.store = Barred
    job = bench.run()
    assert (job.state, job.message) == ("failed", "dst takes no writes")


def test_what_a_resumed_run_deletes_adds_to_what_was_deleted_before(bench: Bench) -> None:
    bench.run()
    bench.put("extra")
    bench.delete("src", "k0")
    job = bench.run(sync=True)
    assert (job.counts.total, job.counts.deleted) == (3, 1)
    bench.put("late")
    bench.run()
    bench.delete("src", "late")
    with closing(sqlite3.connect(bench.folder / JOBS)) as db, db:
        db.execute("UPDATE jobs SET state = 'running' WHERE id = ?", (job.id,))
    job = bench.again(job)
    assert (job.state, job.counts.deleted) == ("done", 2)
    assert bench.keys() == ["extra", "k1", "k2"]


def test_a_folder_that_can_not_be_used_leaves_the_job_waiting(bench: Bench) -> None:
    """As on a full disk: whoever runs jobs tries again later, and nothing has failed."""
    job = bench.jobs.add(Order(source="s3://src", destination="s3://dst", etl="upper"), "ann")
    folder = bench.jobs.folder_of(job.id)
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("in the way")
    with pytest.raises(CatalogError, match="folder can't be used"):
        bench.again(job)
    assert bench.jobs.get(job.id).state == "queued"
    folder.unlink()
    assert bench.again(job).state == "done"


def test_errors_that_can_not_be_read_are_the_catalogs(bench: Bench) -> None:
    job = bench.run()
    (bench.jobs.folder_of(job.id) / WORKLIST).write_bytes(b"no database" * 1000)
    with pytest.raises(CatalogError):
        bench.jobs.errors(job.id)


def test_a_failure_ends_a_job_that_is_to_stop_then(bench: Bench) -> None:
    job = bench.run("fail", continue_on_error=False)
    assert (job.state, job.counts.failed) == ("failed", 1)
    assert job.message.startswith("'k0' failed, and the job was to stop then: ETL 'fail' failed")


def test_what_can_not_be_chosen_writes_nothing_and_makes_no_bucket(bench: Bench) -> None:
    job = bench.run(ext={"jpg": "webp"}, prepend="x" * 2000)
    assert (job.state, job.counts.total) == ("failed", 0)
    assert "1024 bytes" in job.message
    assert bench.buckets() == ["src"]


def test_a_dry_run_makes_no_bucket(bench: Bench) -> None:
    job = bench.run(dry_run=True)
    assert (job.state, job.counts.written, job.counts.bytes_out) == ("done", 3, 12)
    assert bench.buckets() == ["src"]


def test_an_abort_between_two_tasks_ends_it(bench: Bench) -> None:
    job = bench.jobs.add(Order(source="s3://src", destination="s3://dst", etl="upper"), "ann")

    def abort() -> None:
        bench.jobs.order_abort(job.id)

    bench.between = abort
    ended = bench.again(job)
    assert (ended.state, ended.message) == ("aborted", "")
    assert 0 < ended.counts.written < 3


def test_an_engine_that_can_not_be_had_fails_the_job_with_the_reason(bench: Bench) -> None:
    job = bench.jobs.add(Order(source="s3://src", destination="s3://dst", etl="upper"), "ann")

    def none(_opener: Opener, _job: Job) -> Engine:
        raise EngineUnavailable("there is no cluster")

    ended = bench.again(job, none)
    assert (ended.state, ended.message) == ("failed", "there is no cluster")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ZeroDivisionError("as asked"), "ZeroDivisionError: as asked"),
        (sqlite3.OperationalError("disk I/O error"), "the job's own files can't be used: disk I/O error"),
        (OSError(errno.ENOSPC, "no room"), "The disk is full. Make room, and start the same job anew"),
    ],
)
def test_what_nobody_foresaw_fails_the_job_with_a_message(bench: Bench, error: Exception, message: str) -> None:
    job = bench.jobs.add(Order(source="s3://src", destination="s3://dst", etl="upper"), "ann")

    def fail() -> None:
        raise error

    bench.between = fail
    ended = bench.again(job)
    assert ended.state == "failed"
    assert message in ended.message


def test_a_site_that_can_not_be_opened_fails_the_job(bench: Bench) -> None:
    job = bench.jobs.add(Order(source="s3://src", destination="s3://dst", etl="upper"), "ann")
    bench.broken = OSError("no such folder")
    ended = bench.again(job)
    assert (ended.state, ended.message) == ("failed", "OSError: no such folder")
