"""A server filled with what the clients read: sources, ETLs and views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.integration.clients.cases import EVERY, SOURCES, Case
from tests.integration.clients.drivers import Place
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
        for case in EVERY:
            admin.init_etl(case.etl, plugin=case.plugin, args=dict(case.args))
            admin.create_view(case.view, SOURCE, case.etl, sizes="source")
            admin.create_view(case.exact_view, SOURCE, case.etl, sizes="materialise")
    return matrix


def check(matrix: Matrix, case: Case, key: str, got: bytes) -> None:
    """The bytes are those of the transformer, or of one run of it where each run gives others."""
    if case.result is not None:
        assert len(got) == len(case.result())
        assert got == case.result()
        return
    assert len(got) == case.size
    current = matrix.s3.head_object(Bucket=case.view, Key=key)["ETag"]
    assert got == matrix.s3.get_object(Bucket=case.view, Key=key, IfMatch=current)["Body"].read()
