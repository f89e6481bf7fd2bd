"""A job fills the disk under the data folder: it ends and says so, and is done once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.running import RunningServer
from tests.wire import eventually
from transom.target.jobs.catalog import JobCatalog
from transom.target.jobs.order import Order
from transom.target.jobs.records import ENDED, Job

MIB = 1024 * 1024
DISK = 24 * MIB
OBJECTS, SIZE = 80, 100_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server on a small file system in memory, as root can make one."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small file system")
    running = RunningServer(tmp_path / "data", ("--processes", "1"))
    try:
        s3 = running.start().client()
        s3.create_bucket(Bucket="src")
        for n in range(OBJECTS):
            s3.put_object(Bucket="src", Key=f"k{n:03}", Body=os.urandom(SIZE))
        yield running
    finally:
        running.stop()
        subprocess.run(["umount", str(tmp_path)], check=True)


def run(server: RunningServer) -> Job:
    with closing(JobCatalog.open(server.folder)) as catalog:
        job = catalog.add(Order(source="s3://src", destination="s3://dst", etl="echo"), "admin")

        def ended() -> Job | None:
            now = catalog.get(job.id)
            return now if now.state in ENDED else None

        return eventually(ended, within_s=30)


def test_a_job_that_fills_the_disk_says_so_and_is_done_once_there_is_room(server: RunningServer) -> None:
    ballast = server.folder / "ballast"
    ballast.write_bytes(bytes(8 * MIB))
    job = run(server)
    assert (job.state, job.message.split(". ")[0]) == ("failed", "The disk is full")
    assert 0 < job.counts.written < OBJECTS
    ballast.unlink()
    again = run(server)
    assert (again.state, again.counts.failed, again.counts.done) == ("done", 0, OBJECTS)
    assert again.counts.unchanged >= job.counts.written
