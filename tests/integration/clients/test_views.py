"""Every client reads transformed objects, whole and right, whatever their size."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.clients.cases import CASE, CASES, Case
from tests.integration.clients.conftest import SOURCE, Matrix
from tests.integration.clients.drivers import CLIENTS, Driver

Clients = Callable[[str], Driver]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("name", CLIENTS)
def test_result_is_read_through_a_view(matrix: Matrix, clients: Clients, name: str, case: Case) -> None:
    client = clients(name)
    key = matrix.source(name, case.source)
    check(matrix, case, key, client.read(matrix.place(case.view), key))


def check(matrix: Matrix, case: Case, key: str, got: bytes) -> None:
    """The bytes are those of the transformer, or of one run of it where each run gives others."""
    if case.result is not None:
        assert got == case.result()
        return
    assert len(got) == case.size
    current = matrix.s3.head_object(Bucket=case.view, Key=key)["ETag"]
    assert got == matrix.s3.get_object(Bucket=case.view, Key=key, IfMatch=current)["Body"].read()
