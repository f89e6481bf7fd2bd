"""Clients that list before they read: they take the listed ETags, and some the listed sizes, at their word."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.clients.cases import CASE, SOURCES, Case
from tests.integration.clients.drivers import CLIENTS, Aws, Driver
from tests.integration.clients.matrix import SOURCE, Matrix

Clients = Callable[[str], Driver]
KEYS = ("a.txt", "b c.txt", "deep/d.txt", "e.txt")


def prefix_of(matrix: Matrix, case: Case, name: str) -> str:
    """A folder of sources that no other test has listed."""
    prefix = f"{name}/"
    for key in KEYS:
        matrix.s3.copy_object(
            Bucket=SOURCE, Key=prefix + key, CopySource={"Bucket": SOURCE, "Key": case.source}
        )
    return prefix


@pytest.mark.parametrize("case", [CASE["constant"], CASE["grow12"]], ids=lambda case: case.name)
@pytest.mark.parametrize("name", CLIENTS)
def test_all_that_is_listed_with_exact_sizes_is_read(
    matrix: Matrix, clients: Clients, name: str, case: Case
) -> None:
    client = clients(name)
    prefix = prefix_of(matrix, case, f"exact/{case.name}/{name}")
    got = client.read_listed(matrix.place(f"{case.view}-exact"), prefix)
    assert {key: data == case.result_bytes() for key, data in got.items()} == {prefix + key: True for key in KEYS}
