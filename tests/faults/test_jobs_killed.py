"""Jobs whose processes are killed: the server whole, what starts jobs, a runner, an executor; all is made, once."""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes import children, gone, kill
from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import eventually
from transom.client.admin import AdminClient

MANY = 10_000
IN_HAND = 2 * 128  # objects that a worker has, at most: a batch being written, and the next (see jobs.dispatch)


def _fill(server: RunningServer, bucket: str, count: int) -> None:
    server.fill(bucket, {f"k{n:05}": str(n).encode() for n in range(count)})


def _keys(s3: Any, bucket: str) -> dict[str, tuple[str, Any]]:
    """ETag and time of every key."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {each["Key"]: (each["ETag"], each["LastModified"]) for page in pages for each in page.get("Contents", ())}


def _jobs_process(server: RunningServer) -> int:
    """The pid of the process that starts jobs."""
    return server.desk()


def _runs(log: Path) -> Counter[str]:
    return Counter(log.read_text().split("\n")[:-1]) if log.exists() else Counter()


@pytest.mark.timeout(240)
def test_a_job_goes_on_after_the_server_was_killed(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    """10,000 objects: all there; what was written before the kill is not done again, as the transformer counts."""
    server = start_server()
    s3, log = server.client(max_pool_connections=16), tmp_path / "runs"
    _fill(server, "many", MANY)
    with AdminClient(server.endpoint, ACCESS, SECRET) as admin:
        job = admin.transform("s3://many", "s3://made", "count", args={"log": str(log)})
        for seen in admin.watch_job(job.id):
            assert not seen.ended
            if seen.written > 1000:
                break
        server.kill()
        counted = _runs(log)
        assert 1000 < sum(counted.values()) < MANY
        server.start()
        written = _keys(server.client(), "made")
        assert len(written) > 0
        ended = admin.wait_job(job.id, timeout_s=120)
    assert (ended.state, ended.total, ended.failed, ended.runs) == ("done", MANY, 0, 2)
    assert ended.written + ended.unchanged == MANY
    s3 = server.client(max_pool_connections=16)
    made = _keys(s3, "made")
    assert len(made) == MANY
    assert {key: made[key] for key in written} == written  # none was written twice
    runs = _runs(log)
    assert len(runs) == MANY
    again = sum(runs.values()) - MANY
    assert again <= IN_HAND * len(os.sched_getaffinity(0))  # at most what was made and not yet written
    sample = [f"k{n:05}" for n in range(0, MANY, 97)]
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(lambda key: s3.get_object(Bucket="made", Key=key)["Body"].read(), sample))
    assert bodies == [str(int(key[1:])).encode() for key in sample]


def test_a_job_goes_on_after_its_processes_were_killed(
    start_server: Callable[..., RunningServer], tmp_path: Path
) -> None:
    """An executor, then the runner, then the process that starts runners: each time it goes on."""
    server = start_server()
    s3, log = server.client(max_pool_connections=16), tmp_path / "runs"
    _fill(server, "some", 200)
    with AdminClient(server.endpoint, ACCESS, SECRET) as admin:
        job = admin.transform("s3://some", "s3://made", "count", args={"log": str(log), "seconds": 0.05})

        def progress(above: int) -> int:
            return eventually(lambda: max(0, admin.job(job.id).written - above))

        done = progress(0)
        desk = _jobs_process(server)
        (runner,) = children(desk)
        executor = eventually(lambda: _deepest(runner))
        kill(executor)
        done += progress(done)
        (runner,) = children(desk)
        kill(runner)
        done += progress(done)
        kill(desk)
        eventually(lambda: gone(desk))
        ended = admin.wait_job(job.id, timeout_s=60)
    assert (ended.state, ended.failed) == ("done", 0)
    assert ended.written + ended.unchanged == 200
    assert len(_keys(s3, "made")) == 200
    assert sum(_runs(log).values()) < 400


@pytest.mark.parametrize("victim", ["executor", "server"])
def test_a_batch_being_written_and_the_next_one_are_done_again_after_a_kill(
    start_server: Callable[..., RunningServer], tmp_path: Path, victim: str
) -> None:
    """Killed while one batch waits for its commit and another was computed: none is lost, none written twice."""
    count = 200
    server = start_server()
    s3, log = server.client(max_pool_connections=16), tmp_path / "runs"
    _fill(server, "some", count)
    with AdminClient(server.endpoint, ACCESS, SECRET) as admin:
        args = {"log": str(log), "seconds": 0.01}
        job = admin.transform("s3://some", "s3://made", "count", args=args, concurrency=1)
        eventually(lambda: admin.job(job.id).written)
        with _no_commits(server.folder):
            in_hand = _standing(log)
            written = _keys(s3, "made")
            assert sum(in_hand.values()) - len(written) >= 16  # the first batches have 8
            if victim == "server":
                family = _family(_jobs_process(server))
                server.kill()
                # each dies of its parent's death: one that outlived the lock would write what it holds, and not again
                eventually(lambda: all(map(gone, family)))
            else:
                kill(eventually(lambda: _deepest(children(_jobs_process(server))[0])))
        if victim == "server":
            server.start()
        ended = admin.wait_job(job.id, timeout_s=60)
    assert (ended.state, ended.failed, ended.total) == ("done", 0, count)
    assert ended.written + ended.unchanged == count
    s3 = server.client()
    made = _keys(s3, "made")
    assert len(made) == count
    assert {key: made[key] for key in written} == written
    runs = _runs(log)
    assert len(runs) == count
    assert max(runs.values()) == 2
    assert {name.rpartition("/")[2] for name, times in runs.items() if times > 1}.isdisjoint(written)
    for n in range(0, count, 7):
        assert s3.get_object(Bucket="made", Key=f"k{n:05}")["Body"].read() == str(n).encode()


@contextmanager
def _no_commits(folder: Path) -> Iterator[None]:
    """Nothing is committed to the store inside: whoever writes waits."""
    with (folder / "store" / "writer.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _standing(log: Path) -> Counter[str]:
    """The runs, once no more are begun for a while."""
    while True:
        before = _runs(log)
        time.sleep(0.5)  # fifty times what a run takes
        if _runs(log) == before:
            return before


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for each in found:
        found += children(each)
    return found


def _deepest(pid: int) -> int | None:
    """A process of the family that has no children: one that transforms."""
    below = children(pid)
    while below:
        pid, below = below[-1], children(below[-1])
    return pid


def test_nothing_of_a_job_is_left_after_the_server_was_killed(start_server: Callable[..., RunningServer]) -> None:
    server = start_server()
    _fill(server, "left", 50)
    with AdminClient(server.endpoint, ACCESS, SECRET) as admin:
        job = admin.transform("s3://left", "s3://made", "sleep", args=0.2)
        eventually(lambda: admin.job(job.id).written)
        family = _family(_jobs_process(server))
        assert len(family) > 2
        server.kill()
        eventually(lambda: all(map(gone, family)))
