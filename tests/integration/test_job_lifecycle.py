"""The life of an offline job in a real server: begun, stopped, killed, gone on with. What it makes is tested apart."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import RunningServer
from transom.target.etl.error_log import ErrorLog
from transom.target.jobs.catalog import JobCatalog
from transom.target.jobs.order import Order
from transom.target.jobs.records import ENDED, Job

WAIT_S = 30.0


class Jobs:
    """A server's jobs, asked for behind its back: through the catalog that its processes share.

    Buckets have the name that a test gives them behind `prefix`, so that tests can share a server.
    """

    def __init__(self, server: RunningServer, prefix: str = "") -> None:
        self.server, self.s3, self.prefix = server, server.client(), prefix
        self.catalog = JobCatalog.open(server.folder)

    def fill(self, count: int) -> None:
        """Make the bucket `src` with so many objects."""
        self.server.fill(f"{self.prefix}src", {f"k{n:04}": b"some text %d" % n for n in range(count)})

    def start(self, etl: str, to: str = "dst", **asked: Any) -> str:
        """Begin a job; returns its id."""
        order = Order(source=f"s3://{self.prefix}src", destination=f"s3://{self.prefix}{to}", etl=etl, **asked)
        return self.catalog.add(order, "admin").id

    def until(self, job_id: str, fits: Callable[[Job], bool]) -> Job:
        """The job, once it is as wanted."""
        give_up = time.monotonic() + WAIT_S
        while not fits(job := self.catalog.get(job_id)):
            assert time.monotonic() < give_up, (job, "".join(self.server.log))
            time.sleep(0.02)
        return job

    def end(self, job_id: str) -> Job:
        """The job, once it has ended."""
        return self.until(job_id, lambda job: job.state in ENDED)

    def begun(self, job_id: str, done: int = 0) -> Job:
        """The job, once that many of its objects are decided."""
        return self.until(job_id, lambda job: job.phase == "transforming" and job.counts.done >= done)

    def there(self, bucket: str = "dst") -> dict[str, Any]:
        """When each object of a bucket was written."""
        listed = self.s3.list_objects_v2(Bucket=self.prefix + bucket)
        return {each["Key"]: each["LastModified"] for each in listed.get("Contents", [])}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = RunningServer(tmp_path_factory.mktemp("jobs") / "data", ("--processes", "1")).start()
    yield server
    server.stop()


@pytest.fixture
def jobs(running: RunningServer, request: pytest.FixtureRequest) -> Iterator[Jobs]:
    digest = hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    made = Jobs(running, f"{digest}-")
    yield made
    for job in made.catalog.resumable():
        made.catalog.order_abort(job.id)
        made.end(job.id)
    made.catalog.close()


def below(pid: int) -> list[int]:
    """The pids of all that a process started, theirs too."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [each for child in children for each in (child, *below(child))]


def runner_of(server: RunningServer) -> int:
    return below(server.desk())[0]


def executors_of(server: RunningServer) -> list[int]:
    """The processes below the runner's spawner."""
    return below(server.desk())[2:]


def test_a_job_makes_its_destination_and_ends(jobs: Jobs) -> None:
    jobs.fill(5)
    job = jobs.end(jobs.start("upper"))
    assert (job.state, job.message, job.counts.total, job.counts.written, job.runs) == ("done", "", 5, 5, 1)
    assert len(jobs.there()) == 5
    assert jobs.s3.get_object(Bucket=f"{jobs.prefix}dst", Key="k0003")["Body"].read() == b"SOME TEXT 3"
    again = jobs.end(jobs.start("upper"))
    assert (again.counts.written, again.counts.unchanged) == (0, 5)
    assert not any((jobs.catalog.folder_of(job.id) / "scratch").glob("*"))


def test_a_small_job_costs_little(jobs: Jobs) -> None:
    jobs.fill(1)
    jobs.end(jobs.start("echo"))
    took = []
    for _ in range(5):
        begun = time.monotonic()
        assert jobs.end(jobs.start("echo", force=True)).counts.written == 1
        took.append(time.monotonic() - begun)
    assert min(took) < 0.5, took


def test_an_aborted_job_stops_at_once_and_leaves_others_alone(jobs: Jobs) -> None:
    jobs.fill(20)
    long, other = jobs.start("sleep", args=30.0), jobs.start("sleep", "other", args=0.2)
    jobs.begun(long)
    ordered = time.monotonic()
    jobs.catalog.order_abort(long)
    job = jobs.end(long)
    assert (job.state, job.message, job.counts.written) == ("aborted", "", 0)
    assert time.monotonic() - ordered < 3
    assert jobs.end(other).counts.written == 20
    give_up = time.monotonic() + 5
    while below(jobs.server.desk()):
        assert time.monotonic() < give_up
        time.sleep(0.02)
    assert not jobs.there()


def test_a_job_ends_when_its_time_is_over(jobs: Jobs) -> None:
    jobs.fill(2)
    job = jobs.end(jobs.start("sleep", args=30.0, timeout_s=0.5))
    assert (job.state, job.message) == ("failed", "the job took longer than 0.5 s")
    assert job.ended_s - job.started_s < 5


def test_a_job_may_stop_at_the_first_failure(jobs: Jobs) -> None:
    jobs.fill(50)
    job = jobs.end(jobs.start("fail", continue_on_error=False, concurrency=1))
    assert job.state == "failed"
    assert "failed, and the job was to stop then: ETL 'fail' failed" in job.message
    assert 1 <= job.counts.failed < 50
    assert jobs.end(jobs.start("fail", "other")).counts.failed == 50


def test_what_failed_is_tried_again_and_nothing_else(jobs: Jobs) -> None:
    jobs.fill(3)
    job = jobs.end(jobs.start("upper", keys=("k0000", "later", "k0002")))
    assert (job.state, job.counts.written, job.counts.failed) == ("done", 2, 1)
    assert [(error.key, error.code) for error in jobs.catalog.errors(job.id)] == [("later", "NoSuchKey")]
    before = jobs.there()
    jobs.s3.put_object(Bucket=f"{jobs.prefix}src", Key="later", Body=b"late")
    jobs.catalog.retry(job.id)
    again = jobs.end(job.id)
    assert (again.state, again.counts.written, again.counts.failed, again.runs) == ("done", 3, 0, 2)
    assert list(jobs.catalog.errors(job.id)) == []
    after = jobs.there()
    assert after.keys() - before.keys() == {"later"}
    assert all(after[key] == written for key, written in before.items())


def test_a_job_of_what_is_not_there_fails_with_the_reason(jobs: Jobs) -> None:
    jobs.fill(1)
    assert "no ETL named 'nonesuch'" in jobs.end(jobs.start("nonesuch")).message
    gone = jobs.catalog.add(Order(source="s3://gone", destination="s3://dst", etl="upper"), "admin").id
    assert "gone" in jobs.end(gone).message


def test_objects_that_kill_their_worker_fail_and_the_others_are_done(jobs: Jobs) -> None:
    jobs.fill(6)
    job = jobs.end(jobs.start("crash"))
    assert (job.state, job.counts.failed) == ("done", 6)
    errors = jobs.catalog.errors(job.id)
    assert {error.code for error in errors} == {"EtlCrashed"}
    assert "exit code 70" in errors[0].message


def test_a_killed_worker_costs_nothing(jobs: Jobs) -> None:
    jobs.fill(60)
    job_id = jobs.start("sleep", args=0.02)
    jobs.begun(job_id, done=1)
    os.kill(executors_of(jobs.server)[0], signal.SIGKILL)
    job = jobs.end(job_id)
    assert (job.state, job.counts.done, job.counts.failed, job.runs) == ("done", 60, 0, 1)


@pytest.mark.parametrize("victim", [runner_of, RunningServer.desk], ids=["runner", "desk"])
def test_a_job_whose_processes_are_killed_goes_on(jobs: Jobs, victim: Callable[[RunningServer], int]) -> None:
    jobs.fill(60)
    job_id = jobs.start("sleep", args=0.02)
    jobs.begun(job_id, done=1)
    workers = below(jobs.server.desk())
    os.kill(victim(jobs.server), signal.SIGKILL)
    job = jobs.end(job_id)
    assert (job.state, job.counts.done, job.counts.failed, job.runs) == ("done", 60, 0, 2)
    assert not set(workers) & set(below(jobs.server.desk()))


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_job_outlives_its_server_and_does_only_the_rest(jobs: Jobs, how: str) -> None:
    jobs.fill(100)
    job_id = jobs.start("sleep", args=0.02, force=True)
    jobs.begun(job_id, done=10)
    getattr(jobs.server, how)()
    known = jobs.catalog.get(job_id)
    assert known.state == "running"
    jobs.server.start()
    before = jobs.there()
    job = jobs.end(job_id)
    assert (job.state, job.counts.done, job.counts.failed, job.runs) == ("done", 100, 0, 2)
    after = jobs.there()
    assert len(after) == 100
    noted = known.counts.written
    assert noted >= 10
    assert sum(after[key] == written for key, written in before.items()) >= noted


def test_jobs_beyond_the_bound_wait_and_one_that_waits_is_aborted_at_once(
    start_server: Callable[..., RunningServer], tmp_path: Path
) -> None:
    config = tmp_path / "transom.toml"
    config.write_text("[jobs]\nconcurrency = 1\n")
    jobs = Jobs(start_server("--processes", "1", "--config", str(config)))
    jobs.fill(4)
    first, second, third = (jobs.start("sleep", f"dst{n}", args=0.2) for n in range(3))
    jobs.begun(first)
    assert jobs.catalog.order_abort(second).state == "aborted"
    assert jobs.catalog.get(third).state == "queued"
    assert jobs.end(first).state == "done"
    ended = jobs.end(third)
    assert (ended.state, ended.counts.written) == ("done", 4)
    assert ended.started_s >= jobs.catalog.get(first).ended_s
    jobs.catalog.close()


def test_three_jobs_at_once_on_one_etl_are_all_done(jobs: Jobs) -> None:
    jobs.fill(40)
    started = [jobs.start("sleep", f"dst{n}", args=0.02) for n in range(3)]
    for job_id in started:
        jobs.begun(job_id)
    assert [jobs.end(job_id).counts.written for job_id in started] == [40, 40, 40]
    seen = [jobs.catalog.get(job_id) for job_id in started]
    assert max(job.started_s for job in seen) < min(job.ended_s for job in seen)


def test_jobs_yield_to_everything_else(jobs: Jobs) -> None:
    jobs.fill(4)
    jobs.begun(jobs.start("sleep", args=5.0))
    give_up = time.monotonic() + WAIT_S
    while not executors_of(jobs.server):
        assert time.monotonic() < give_up
        time.sleep(0.02)
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in below(jobs.server.desk())} == {10}
    assert os.getpriority(os.PRIO_PROCESS, jobs.server.desk()) == 0


def test_what_removed_jobs_left_is_swept_at_the_start(jobs: Jobs) -> None:
    left = jobs.catalog.folder_of("gone")
    left.mkdir(parents=True)
    (left / "work.sqlite").write_bytes(b"")
    jobs.server.stop()
    jobs.server.start()
    give_up = time.monotonic() + WAIT_S
    while left.exists():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_the_errors_of_an_etl_show_those_of_jobs(jobs: Jobs) -> None:
    jobs.fill(2)
    job_id = jobs.start("fail")
    jobs.end(job_id)
    log = ErrorLog(jobs.server.folder / "errors.sqlite")
    try:
        assert {entry.key for entry in log.of_etl("fail") if entry.job == job_id} == {"k0000", "k0001"}
    finally:
        log.close()


def test_a_worklist_that_cannot_be_read_fails_the_job(jobs: Jobs) -> None:
    jobs.fill(1)
    jobs.server.stop()
    job_id = jobs.start("upper")
    folder = jobs.catalog.folder_of(job_id)
    folder.mkdir(parents=True)
    (folder / "work.sqlite").write_bytes(json.dumps({"no": "database"}).encode() * 1000)
    jobs.server.start()
    job = jobs.end(job_id)
    assert job.state == "failed"
    assert "own files" in job.message
