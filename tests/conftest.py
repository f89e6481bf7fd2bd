"""Fixtures every test may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.containers.fixtures import aistore_image, container_engine, gone, socket_folder
from tests.running import RunningServer

__all__ = ["aistore_image", "container_engine", "gone", "socket_folder"]

# How the server can be run; what is promised of one way is promised of all.
WAYS = {
    "embedded": (),
    "hypercorn": ("--server", "hypercorn"),
    "targets": ("--targets", "3"),
}


@pytest.fixture(scope="session")
def kept_servers() -> Iterator[Callable[[str, Callable[[], RunningServer]], RunningServer]]:
    """Servers by name, each started when first asked for and kept to the end: pytest itself would stop one way of
    running when it comes to the next, and start it again for every file."""
    started: dict[str, RunningServer] = {}

    def kept(name: str, make: Callable[[], RunningServer]) -> RunningServer:
        if name not in started:
            started[name] = make().start()
        return started[name]

    yield kept
    statuses = {name: running.stop() for name, running in started.items()}
    assert not any(statuses.values()), {name: "".join(started[name].log) for name in statuses if statuses[name]}


@pytest.fixture(scope="session", params=WAYS)
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    kept_servers: Callable[[str, Callable[[], RunningServer]], RunningServer],
) -> RunningServer:
    """A running server, one for each way of running it."""
    way = request.param
    return kept_servers(way, lambda: RunningServer(tmp_path_factory.mktemp(way), WAYS[way]))


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
