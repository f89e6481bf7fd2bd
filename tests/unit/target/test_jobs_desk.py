"""The desk, as a process of its own, with jobs that end, die or hang as their ETL's name says."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from transom.target.jobs.catalog import JOBS, RECORDS, JobCatalog
from transom.target.jobs.desk import _LOOK_S, Desk
from transom.target.jobs.order import Order
from transom.target.jobs.records import ENDED, Job
from transom.target.jobs.run import _OTHERS_END_S

PATIENCE_S = 30.0


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[JobCatalog]:
    with closing(JobCatalog.open(tmp_path)) as catalog:
        yield catalog


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a desk in a process of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def made(concurrency: int = 4, keep_s: float = 0.0) -> subprocess.Popen[bytes]:
        script = str(Path(__file__).with_name("desk_child.py"))
        started.append(subprocess.Popen([sys.executable, script, str(tmp_path), str(concurrency), str(keep_s)]))
        return started[-1]

    yield made
    for child in started:
        child.terminate()
        assert child.wait(PATIENCE_S) in (0, -9)


def add(catalog: JobCatalog, etl: str, **asked: Any) -> str:
    return catalog.add(Order(source="s3://a", destination="s3://b", etl=etl, **asked), "ann").id


def until(catalog: JobCatalog, job_id: str, fits: Callable[[Job], bool]) -> Job:
    give_up = time.monotonic() + PATIENCE_S
    while not fits(job := catalog.get(job_id)):
        assert time.monotonic() < give_up, job
        time.sleep(0.01)
    return job


def end(catalog: JobCatalog, job_id: str) -> Job:
    return until(catalog, job_id, lambda job: job.state in ENDED)


def test_jobs_that_ended_long_ago_are_forgotten_and_only_if_asked(
    catalog: JobCatalog, start: Callable[..., Any]
) -> None:
    old = add(catalog, "old")
    catalog.claim(old)
    catalog.finish(old, "done")
    desk = start()
    end(catalog, add(catalog, "fine"))
    assert catalog.get(old).state == "done"
    desk.terminate()
    assert desk.wait(PATIENCE_S) == 0
    start(keep_s=0.01)
    give_up = time.monotonic() + PATIENCE_S
    while catalog.list():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_each_job_has_a_niced_process_of_its_own(catalog: JobCatalog, start: Callable[..., Any]) -> None:
    before = add(catalog, "end")
    desk = start()
    after = add(catalog, "end")
    told = [end(catalog, job_id).message.split() for job_id in (before, after)]
    assert len({pid for pid, _, _ in told} | {str(desk.pid)}) == 3
    assert all(priority == "10" and session == pid for pid, priority, session in told)


def test_one_that_dies_is_begun_again_a_few_times(catalog: JobCatalog, start: Callable[..., Any]) -> None:
    once, always, unwritten = (add(catalog, etl) for etl in ("die-once", "die", "raise"))
    catalog.folder_of(always).mkdir(parents=True)
    (catalog.folder_of(always) / RECORDS).touch()  # what a sort left that goes on
    start()
    assert (end(catalog, once).state, end(catalog, once).runs) == ("done", 2)
    job = end(catalog, always)
    assert not (catalog.folder_of(always) / RECORDS).exists()
    assert (job.state, job.runs, job.message) == ("failed", 3, "the job's process died 3 times, at last by signal 9")
    assert end(catalog, unwritten).message.endswith("exit code 1")


def test_a_runner_may_wait_for_the_end_of_a_killed_one_and_still_ends_its_job_itself(tmp_path: Path) -> None:
    assert Desk(tmp_path, 1, lambda _: None).late_s > _OTHERS_END_S


@pytest.mark.timeout(60)
def test_one_whose_end_can_not_be_written_is_run_again_later(catalog: JobCatalog, start: Callable[..., Any]) -> None:
    start()
    job = end(catalog, add(catalog, "full-once"))
    assert (job.state, job.runs) == ("done", 2)


@pytest.mark.timeout(60)
def test_one_whose_folder_stays_unusable_is_tried_less_and_less_and_logged_when_something_changes(
    catalog: JobCatalog, start: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    why = tmp_path / "why"
    why.write_text("no room")
    stuck = add(catalog, "stuck")
    desk = start(1)
    until(catalog, stuck, lambda job: job.runs >= 3)
    begun = time.monotonic()
    assert end(catalog, add(catalog, "end")).state == "done"  # others don't wait for it
    assert time.monotonic() - begun < _LOOK_S
    why.write_text("not a folder")
    runs = catalog.get(stuck).runs
    until(catalog, stuck, lambda job: job.runs >= runs + 2)
    (tmp_path / "free").touch()
    job = end(catalog, stuck)
    took_s = job.ended_s - job.created_s
    assert (job.state, 0.1 * (2 ** (job.runs - 1) - 1) < took_s) == ("done", True)
    lines, give_up = capfd.readouterr().err.splitlines(), time.monotonic() + PATIENCE_S
    while len(lines) < 3 and time.monotonic() < give_up:  # the last is said once its process has ended, too
        lines += capfd.readouterr().err.splitlines()
        time.sleep(0.01)
    desk.terminate()
    assert desk.wait(PATIENCE_S) == 0
    waits = f"job {stuck} has to wait: its folder can't be used:"
    assert lines == [
        f"{waits} no room",
        f"{waits} not a folder",
        f"job {stuck} no longer has to wait",
    ]


@pytest.mark.timeout(60)
def test_one_that_waits_is_aborted_without_another_try(
    catalog: JobCatalog, start: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "why").write_text("no room")
    stuck = add(catalog, "stuck")
    start()
    runs = until(catalog, stuck, lambda job: job.runs >= 6).runs  # the next would be seconds later
    catalog.order_abort(stuck)
    job = end(catalog, stuck)
    assert (job.state, job.runs) == ("aborted", runs)


@pytest.mark.timeout(60)
def test_a_catalog_that_can_not_be_used_is_logged_once(
    catalog: JobCatalog, start: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    catalog.close()
    path, kept = tmp_path / JOBS, tmp_path / "kept"
    path.rename(kept)
    path.mkdir()
    desk = start()
    begun = time.monotonic()
    lines: list[str] = []
    while time.monotonic() - begun < 1.0 or not lines:  # some three tries
        lines += capfd.readouterr().err.splitlines()
        assert time.monotonic() < begun + PATIENCE_S
        time.sleep(0.02)
    path.rmdir()
    kept.rename(path)
    with closing(JobCatalog.open(tmp_path)) as again:
        assert end(again, add(again, "end")).state == "done"
    desk.terminate()
    assert desk.wait(PATIENCE_S) == 0
    lines += capfd.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "the catalog of jobs can't be used",
        "the catalog of jobs can be used again",
    ]


@pytest.mark.timeout(60)
def test_no_more_run_at_once_than_may_and_the_oldest_comes_first(
    catalog: JobCatalog, start: Callable[..., Any]
) -> None:
    waiting = [add(catalog, etl) for etl in ("hang", "end", "end")]
    start(1)
    until(catalog, waiting[0], lambda job: job.state == "running")
    assert [catalog.get(job_id).state for job_id in waiting] == ["running", "queued", "queued"]
    catalog.order_abort(waiting[0])
    first, second = end(catalog, waiting[1]), end(catalog, waiting[2])
    assert catalog.get(waiting[0]).ended_s <= first.started_s <= second.started_s


@pytest.mark.timeout(60)
def test_one_that_does_not_obey_is_ended_by_force(catalog: JobCatalog, start: Callable[..., Any]) -> None:
    start()
    job_id, after = add(catalog, "hang"), add(catalog, "end")
    until(catalog, job_id, lambda job: job.state == "running")
    catalog.order_abort(job_id)
    assert end(catalog, job_id).state == "aborted"
    assert end(catalog, after).state == "done"


@pytest.mark.timeout(60)
def test_one_whose_time_is_long_over_is_ended_by_force(catalog: JobCatalog, start: Callable[..., Any]) -> None:
    start()
    job = end(catalog, add(catalog, "hang", timeout_s=0.1))
    assert (job.state, job.runs) == ("failed", 1)
    assert "longer" in job.message


def test_jobs_that_were_begun_are_begun_again_by_the_next_desk(catalog: JobCatalog, start: Callable[..., Any]) -> None:
    desk = start()
    job_id = add(catalog, "hang")
    until(catalog, job_id, lambda job: job.state == "running")
    desk.kill()
    desk.wait()
    start()
    assert until(catalog, job_id, lambda job: job.runs == 2).state == "running"
