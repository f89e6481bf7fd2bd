"""The pool of workers that a process keeps warm: what is its own time, what the transform's; which workers it keeps."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from transom.plugins.contract import Context
from transom.target.errors import EtlFailed
from transom.target.etl.watch import Watch
from transom.target.etl.workers import Pool, Task, WorkerPool

MIB = 1024 * 1024
MAX_GROWTH = 64 * MIB  # a fresh worker is smaller, and what else a run may leave is far below


class Slow:
    """A worker that takes its time to start, then echoes."""

    idle = alive = True

    def __init__(self) -> None:
        time.sleep(0.4)

    def run(self, task: str, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        watch.check()
        yield from chunks

    def kill(self) -> None:
        self.alive = False


def test_the_time_a_worker_takes_to_start_is_not_the_transforms() -> None:
    pool: Pool[str] = Pool(lambda task, watch: Slow())
    watch = Watch("slow", 0.3)
    assert b"".join(pool.run("", iter([b"a", b"b"]), watch)) == b"ab"
    assert watch.left_s() > 0
    pool.close()


# --- workers that grow -------------------------------------------------------------------------


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[WorkerPool]:
    made = WorkerPool(tmp_path, MAX_GROWTH)
    yield made
    made.close()


def leak(workers: WorkerPool, **args: int | bool) -> int:
    """Do one run that leaves so much behind, or uses it for a while; returns the worker's process id."""
    task = Task("leak", json.dumps([args, {}]), Context("b", "k", "leak"), 1024 * MIB)
    return int(b"".join(workers.run(task, iter([b"data"]), Watch("leak", 30))))


def test_a_worker_that_has_grown_too_large_is_replaced_after_the_run(workers: WorkerPool, tmp_path: Path) -> None:
    first = leak(workers)
    assert [leak(workers, keep=40 * MIB) for _ in range(2)] == [first, first]  # the second run was too much
    assert not Path(f"/proc/{first}").exists()
    second = leak(workers)
    assert second != first
    assert [leak(workers, keep=MIB) for _ in range(3)] == [second] * 3
    assert len(list(tmp_path.iterdir())) == 1  # the first one's folder went with it


def test_failed_runs_count_too(workers: WorkerPool) -> None:
    first = leak(workers)
    with pytest.raises(EtlFailed, match=f"ETL 'leak' failed: RuntimeError: process {first}"):
        leak(workers, keep=80 * MIB, fail=True)
    assert leak(workers) != first


def test_what_a_run_lets_go_of_again_is_no_growth(workers: WorkerPool) -> None:
    pids = {leak(workers, use=200 * MIB) for _ in range(3)}
    with pytest.raises(EtlFailed):
        leak(workers, use=200 * MIB, fail=True)
    assert {leak(workers)} == pids


def test_what_the_first_run_of_a_transformer_loads_is_kept(workers: WorkerPool) -> None:
    first = leak(workers, keep=200 * MIB)
    assert [leak(workers, keep=40 * MIB) for _ in range(2)] == [first, first]
    assert leak(workers) != first


def test_no_run_is_lost_while_workers_come_and_go(workers: WorkerPool) -> None:
    with ThreadPoolExecutor(3) as threads:
        pids = list(threads.map(lambda _: leak(workers, keep=40 * MIB), range(12)))
    assert max(map(pids.count, pids)) == 3  # the one that brings it up, and two more
