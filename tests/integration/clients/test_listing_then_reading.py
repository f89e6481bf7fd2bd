"""Clients that list before they read: they take the listed ETags, and some of them the listed sizes, at their word.

s3fs's `open` after `ls` reads as many bytes as were listed and has no way to notice more: it needs exact sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tests.integration.clients.cases import CASE, Case
from tests.integration.clients.drivers import CLIENTS, Aws, ClientError, Driver, S3fs
from tests.integration.clients.matrix import SOURCE, Matrix

Clients = Callable[[str], Driver]
KEYS = ("a b.txt", "c.txt")
LISTERS = [name for name in CLIENTS if not name.endswith("when-required")]  # which lists no differently


def folder_of_sources(matrix: Matrix, case: Case, name: str) -> str:
    """A prefix with sources that no other test has listed or read."""
    prefix = f"listed/{name}/{case.name}/"
    for key in KEYS:
        matrix.s3.copy_object(Bucket=SOURCE, Key=prefix + key, CopySource={"Bucket": SOURCE, "Key": case.source})
    return prefix


def check_all(case: Case, prefix: str, got: Mapping[str, bytes]) -> None:
    """Every object came, and each is right; bytes of this size are not for a failure's message."""
    assert {key: len(data) for key, data in got.items()} == {prefix + key: len(case.result_bytes()) for key in KEYS}
    assert all(data == case.result_bytes() for data in got.values())


@pytest.mark.parametrize("case", [CASE["packed"], CASE["grow12"]], ids=["smaller", "larger"])
@pytest.mark.parametrize("name", LISTERS)
def test_all_that_is_listed_with_exact_sizes_is_read(matrix: Matrix, clients: Clients, name: str, case: Case) -> None:
    client = clients(name)
    prefix = folder_of_sources(matrix, case, f"exact-{name}")
    place = matrix.place(case.exact_view)
    assert client.list(place, prefix) == {prefix + key: len(case.result_bytes()) for key in KEYS}
    check_all(case, prefix, client.read_listed(place, prefix))


@pytest.mark.parametrize("case", [CASE["packed"], CASE["wider"]], ids=["smaller", "larger"])
@pytest.mark.parametrize("name", [name for name in LISTERS if name != "s3fs"])
def test_all_that_is_listed_with_the_sources_sizes_is_read_or_refused(
    matrix: Matrix, clients: Clients, name: str, case: Case
) -> None:
    client = clients(name)
    prefix = folder_of_sources(matrix, case, f"source-{name}")
    try:
        got = client.read_listed(matrix.place(case.view), prefix)
    except ClientError:
        return  # aws-cli 1.38 asks for parts past the end of what came out smaller
    check_all(case, prefix, got)


@pytest.mark.parametrize("case", [CASE["packed"], CASE["wider"]], ids=["smaller", "larger"])
@pytest.mark.parametrize("view", ["exact_view", "view"])
def test_s3fs_cats_what_it_listed(matrix: Matrix, clients: Clients, case: Case, view: str) -> None:
    client = clients("s3fs")
    assert isinstance(client, S3fs)
    prefix = folder_of_sources(matrix, case, f"cat-{view}")
    check_all(case, prefix, client.cat_listed(matrix.place(getattr(case, view)), prefix))


def test_second_aws_sync_finds_nothing_to_do(matrix: Matrix, clients: Clients) -> None:
    client, case = clients("aws"), CASE["packed"]
    assert isinstance(client, Aws)
    prefix = folder_of_sources(matrix, case, "sync")
    check_all(case, prefix, client.sync(matrix.place(case.exact_view), prefix))
