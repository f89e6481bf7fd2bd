"""Every client reads transformed objects whole and right: through a made view and through the endpoint's prefix."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.clients.cases import CASE, CASES, LARGE, Case, by_hand
from tests.integration.clients.drivers import CLIENTS, Driver
from tests.integration.clients.matrix import SOURCE, Matrix, check

Clients = Callable[[str], Driver]

BOTO3 = [name for name in CLIENTS if name.startswith("boto3")]
COPYING = ["boto3", "boto3-1.37", "aws", "s5cmd", "rclone", "s3fs", "pyarrow"]
# The older aws-cli costs a second a command and reads as boto3 1.37 does: the cases above are enough of it.
SIMPLE = [name for name in CLIENTS if name != "aws-1.38"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("name", CLIENTS)
def test_result_is_read_through_a_view(matrix: Matrix, clients: Clients, name: str, case: Case) -> None:
    client = clients(name)
    key = matrix.source(name, case.source)
    check(matrix, case, key, client.read(matrix.place(case.view), key))


@pytest.mark.parametrize("case", [CASE[name] for name in ("constant", "grow12", "empty")], ids=lambda case: case.name)
@pytest.mark.parametrize("name", CLIENTS)
def test_result_is_read_through_the_endpoint_prefix(matrix: Matrix, clients: Clients, name: str, case: Case) -> None:
    client = clients(name)
    key = matrix.source(f"prefix/{name}", case.source)
    check(matrix, case, key, client.read(matrix.place(SOURCE, via=case.etl), key))


@pytest.mark.parametrize("name", SIMPLE)
def test_pipeline_is_read_through_the_endpoint_prefix(matrix: Matrix, clients: Clients, name: str) -> None:
    got = clients(name).get(matrix.place(SOURCE, via="upper~md5"), "big.bin")
    assert got == by_hand("md5", CASE["upper"].result_bytes())


@pytest.mark.parametrize("name", SIMPLE)
def test_simplest_read_of_a_result_is_whole(matrix: Matrix, clients: Clients, name: str) -> None:
    client, case = clients(name), CASE["grow12"]
    key = matrix.source(f"simple/{name}", case.source)
    check(matrix, case, key, client.get(matrix.place(case.view), key))


@pytest.mark.parametrize("name", SIMPLE)
def test_one_range_of_a_result_is_that_range(matrix: Matrix, clients: Clients, name: str) -> None:
    client, case = clients(name), CASE["grow12"]
    key = matrix.source(f"range/{name}", case.source)
    start, stop = 5_000_001, 9_000_003
    assert client.get_range(matrix.place(case.view), key, start, stop) == case.result_bytes()[start:stop]


@pytest.mark.parametrize("name", BOTO3)
def test_parallel_ranged_download_of_a_large_result(matrix: Matrix, clients: Clients, name: str) -> None:
    client = clients(name)
    key = matrix.source(f"large/{name}", LARGE.source)
    check(matrix, LARGE, key, client.read(matrix.place(LARGE.view), key))


@pytest.mark.parametrize("name", COPYING)
def test_result_is_copied_from_a_view_into_a_bucket(matrix: Matrix, clients: Clients, name: str) -> None:
    client, case = clients(name), CASE["grow12"]
    key = matrix.source(f"copy/{name}", case.source)
    client.copy(matrix.place(case.view), key, matrix.place(SOURCE), f"{key}.grown")
    check(matrix, case, key, matrix.s3.get_object(Bucket=SOURCE, Key=f"{key}.grown")["Body"].read())


@pytest.mark.parametrize("name", ["boto3", "boto3-1.37", "s3fs", "crt"])
def test_two_reads_under_one_etag_give_the_same_random_bytes(matrix: Matrix, clients: Clients, name: str) -> None:
    client, case = clients(name), CASE["random"]
    key = matrix.source(f"twice/{name}", case.source)
    place = matrix.place(case.view)
    first_etag = matrix.s3.head_object(Bucket=case.view, Key=key)["ETag"]
    first, second = client.read(place, key), client.read(place, key)
    assert matrix.s3.head_object(Bucket=case.view, Key=key)["ETag"] == first_etag
    assert first == second
