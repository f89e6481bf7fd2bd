"""What the matrix promises holds however the server is run: both HTTP servers, and gateways relaying from targets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.clients.cases import CASE, Case
from tests.integration.clients.drivers import Driver
from tests.integration.clients.matrix import SOURCE, Matrix, check

Clients = Callable[[str], Driver]
SOME = ["boto3", "aws", "s3fs"]


@pytest.mark.parametrize("case", [CASE[name] for name in ("grow12", "empty", "random")], ids=lambda c: c.name)
@pytest.mark.parametrize("name", SOME)
def test_result_is_read(each_way: Matrix, clients: Clients, name: str, case: Case) -> None:
    client = clients(name)
    key = each_way.source(name, case.source)
    check(each_way, case, key, client.read(each_way.place(case.view), key))


@pytest.mark.parametrize("name", SOME)
def test_listing_comes_before_reading(each_way: Matrix, clients: Clients, name: str) -> None:
    client, case = clients(name), CASE["packed"]
    key = each_way.source(f"listed-{name}", case.source)
    got = client.read_listed(each_way.place(case.exact_view), f"listed-{name}/")
    assert list(got) == [key]
    check(each_way, case, key, got[key])


@pytest.mark.parametrize("name", SOME)
def test_parallel_ranged_download_of_what_is_not_made_yet(each_way: Matrix, clients: Clients, name: str) -> None:
    client, case = clients(name), CASE["grow30"]
    key = each_way.source(f"parallel-{name}", case.source)
    check(each_way, case, key, client.read(each_way.place(SOURCE, via=case.etl), key))


def test_parts_go_up_and_come_down(each_way: Matrix, clients: Clients) -> None:
    client, data = clients("boto3"), CASE["grow12"].result_bytes()
    path = client.scratch()
    path.write_bytes(data)
    client.put_parts(each_way.place(SOURCE), "parts", path)
    assert client.read(each_way.place(SOURCE), "parts") == data
