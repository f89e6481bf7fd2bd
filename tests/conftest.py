"""Fixtures every test may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.running import RunningServer

# How the server can be run; what is promised of one way is promised of all.
WAYS = {
    "embedded": (),
    "hypercorn": ("--server", "hypercorn"),
    "targets": ("--targets", "3"),
}


@pytest.fixture(scope="session", params=WAYS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A running server, once for each way of running it."""
    running = RunningServer(tmp_path_factory.mktemp(request.param), WAYS[request.param]).start()
    yield running
    assert running.stop() == 0, "".join(running.log)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start servers of one's own, stopped at the end whatever happens."""
    started: list[RunningServer] = []

    def start(*args: str, folder: Path | None = None, **env: str) -> RunningServer:
        running = RunningServer(folder or tmp_path / f"data-{len(started)}", args, env)
        started.append(running)
        return running.start()

    yield start
    for running in started:
        if running.process is not None:
            running.stop()
