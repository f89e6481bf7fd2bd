from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_runs import InProcess, WorkerProcess

from transom.worker.settings import Settings


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="tw-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def serving() -> Iterator[Callable[..., InProcess]]:
    """Serve classes and functions in this process, on a TCP port; keywords are settings."""
    running: list[InProcess] = []

    def start(written: Any, **settings: Any) -> InProcess:
        running.append(InProcess(written, Settings(**{"port": 0, **settings})))
        return running[-1]

    yield start
    for worker in running:
        worker.stop()


@pytest.fixture
def spawn(short_folder: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Run `python -m transom.worker` on some code; keywords are its environment."""
    spawned: list[WorkerProcess] = []

    def start(code: str, *options: str, ready: bool = True, **more: Any) -> WorkerProcess:
        worker = WorkerProcess(code, short_folder, *options, **more)
        spawned.append(worker)
        if ready:
            worker.wait_ready()
        return worker

    yield start
    for worker in spawned:
        worker.kill()
