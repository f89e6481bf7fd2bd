"""The servers of the client matrix, what they hold, and the clients."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clients.cases import CASES, SOURCES
from tests.integration.clients.drivers import CLIENTS, Driver, Place
from tests.running import ACCESS, SECRET, RunningServer
from transom.client.admin import AdminClient

SOURCE = "matrix"


@dataclass(frozen=True, slots=True)
class Matrix:
    """A running server with the sources, ETLs and views of the matrix."""

    server: RunningServer
    s3: Any

    def admin(self) -> AdminClient:
        return AdminClient(self.server.endpoint, ACCESS, SECRET)

    def place(self, bucket: str, via: str = "") -> Place:
        """A bucket, as it is or through a pipeline in the endpoint."""
        return Place(self.server.endpoint + (f"/-/via/{via}" if via else ""), bucket)

    def source(self, client: str, name: str) -> str:
        """The key of a source that no other client reads, so that each meets results nobody has made yet."""
        key = f"{client}/{name}"
        self.s3.copy_object(Bucket=SOURCE, Key=key, CopySource={"Bucket": SOURCE, "Key": name})
        return key


def fill(server: RunningServer) -> Matrix:
    """Put the sources, start the ETLs, make the views."""
    matrix = Matrix(server, server.client())
    matrix.s3.create_bucket(Bucket=SOURCE)
    for name, make in SOURCES.items():
        matrix.s3.put_object(Bucket=SOURCE, Key=name, Body=make(), ContentType="application/octet-stream")
    with matrix.admin() as admin:
        for case in CASES:
            admin.init_etl(case.etl, plugin=case.plugin, args=dict(case.args))
            admin.create_view(case.view, SOURCE, case.etl)
    return matrix


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
