"""Clients that list before they read: they take the listed ETags, and some of them the listed sizes, at their word."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.clients.cases import CASE, Case
from tests.integration.clients.drivers import CLIENTS, Aws, Driver
from tests.integration.clients.matrix import SOURCE, Matrix

Clients = Callable[[str], Driver]
KEYS = ("a.txt", "b c.txt", "deep.txt", "e.txt")
SMALLER_AND_LARGER = pytest.mark.parametrize(
    "case", [CASE["constant"], CASE["grow12"]], ids=["smaller-than-source", "larger-than-source"]
)


def folder_of_sources(matrix: Matrix, case: Case, name: str) -> str:
    """A prefix with sources that no other test has listed or read."""
    prefix = f"listed/{name}/{case.name}/"
    for key in KEYS:
        matrix.s3.copy_object(Bucket=SOURCE, Key=prefix + key, CopySource={"Bucket": SOURCE, "Key": case.source})
    return prefix


@SMALLER_AND_LARGER
@pytest.mark.parametrize("name", CLIENTS)
def test_all_that_is_listed_is_read_where_sizes_are_exact(
    matrix: Matrix, clients: Clients, name: str, case: Case
) -> None:
    client = clients(name)
    prefix = folder_of_sources(matrix, case, f"exact-{name}")
    got = client.read_listed(matrix.place(case.exact_view), prefix)
    assert {key: data == case.result_bytes() for key, data in got.items()} == {prefix + key: True for key in KEYS}


@SMALLER_AND_LARGER
@pytest.mark.parametrize("name", CLIENTS)
def test_all_that_is_listed_is_read_where_sizes_are_the_sources(
    matrix: Matrix, clients: Clients, name: str, case: Case
) -> None:
    client = clients(name)
    prefix = folder_of_sources(matrix, case, f"source-{name}")
    got = client.read_listed(matrix.place(case.view), prefix)
    print({key: (len(data), data == case.result_bytes()) for key, data in got.items()})
    assert {key: data == case.result_bytes() for key, data in got.items()} == {prefix + key: True for key in KEYS}


def test_second_aws_sync_finds_nothing_to_do(matrix: Matrix, clients: Clients) -> None:
    client, case = clients("aws"), CASE["constant"]
    assert isinstance(client, Aws)
    prefix = folder_of_sources(matrix, case, "sync")
    got = client.sync(matrix.place(case.exact_view), prefix)
    assert got == {prefix + key: case.result_bytes() for key in KEYS}
