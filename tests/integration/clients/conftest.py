"""The servers of the client matrix, what they hold, and the clients."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.clients.drivers import CLIENTS, Driver
from tests.integration.clients.matrix import Matrix, fill
from tests.running import RunningServer


@pytest.fixture(scope="session", autouse=True)
def no_aws_setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the caller's own AWS set-up from the tests' boto3; the clients' processes get none of it anyway."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        nothing = tmp_path_factory.mktemp("aws") / "nothing"
        patch.setenv("AWS_CONFIG_FILE", str(nothing))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nothing))
        yield


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """The server that the whole matrix runs against: four server processes."""
    folder = tmp_path_factory.mktemp("matrix")
    running = RunningServer(folder, ("--processes", "4")).start()
    yield fill(running)
    assert running.stop() == 0, "".join(running.log)
    shutil.rmtree(folder, ignore_errors=True)  # results of some hundred MiB


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Driver]]:
    """Clients by name, each started when first asked for; a test of one that isn't installed is skipped."""
    work = tmp_path_factory.mktemp("clients")
    started: dict[str, Driver] = {}

    def client(name: str) -> Driver:
        if name not in started:
            reason = CLIENTS[name].missing()
            if reason is not None:
                pytest.skip(reason)
            started[name] = CLIENTS[name](Path(work), name)
        return started[name]

    yield client
    for driver in started.values():
        driver.close()
    shutil.rmtree(work, ignore_errors=True)


@pytest.fixture(scope="session")
def each_way(server: RunningServer) -> Matrix:
    """The same on a server of each way of running it."""
    return fill(server)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the second aws cli to the soak: it starts in a second and reads as the old boto3 does."""
    for item in items:
        if "aws-1.38" in item.name and item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.soak)
