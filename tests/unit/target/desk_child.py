"""A desk whose jobs do what their ETL's name says. Run as a process: `desk_child.py FOLDER CONCURRENCY`."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

from transom.cluster.records import CatalogError
from transom.target.jobs.catalog import JobCatalog
from transom.target.jobs.desk import Desk
from transom.target.jobs.records import Job


def run(folder: Path, job: Job) -> None:
    with closing(JobCatalog.open(folder)) as catalog:
        claimed = catalog.claim(job.id)
        if claimed is None:
            return
        if job.order.etl == "die" or (job.order.etl == "die-once" and claimed.runs == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if job.order.etl == "full-once" and claimed.runs == 1:
            raise CatalogError("the disk is full")
        if job.order.etl == "stuck" and not (folder / "free").exists():
            raise CatalogError(f"its folder can't be used: {(folder / 'why').read_text()}")
        if job.order.etl == "raise":
            raise OSError("no end can be written")
        if job.order.etl == "hang":
            time.sleep(600)
        catalog.finish(job.id, "done", message=f"{os.getpid()} {os.getpriority(os.PRIO_PROCESS, 0)} {os.getsid(0)}")


def main() -> None:
    folder, concurrency, keep_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _: stopping.append(signum))
    Desk(folder, concurrency, lambda job: run(folder, job), keep_s=keep_s, late_s=2.0, again_s=0.1).serve(
        lambda: bool(stopping)
    )


main()
