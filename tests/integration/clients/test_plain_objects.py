"""Every client puts, lists, gets, copies and deletes plain objects, small ones and those in parts."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.integration.clients.drivers import CLIENTS, Driver, Place
from tests.integration.clients.matrix import Matrix

Clients = Callable[[str], Driver]
# The older aws-cli differs in how it reads; what it writes is covered by boto3 1.37.
WRITERS = [name for name in CLIENTS if name != "aws-1.38"]
MIB = 1024 * 1024
PARTS_SIZE = 11 * MIB + 7


@pytest.fixture
def place(matrix: Matrix, request: pytest.FixtureRequest) -> Place:
    """A bucket for each test and client."""
    kind = request.node.originalname.split("_")[1]
    bucket = f"plain-{kind}-{request.node.callspec.params['name']}"
    matrix.s3.create_bucket(Bucket=bucket)
    return matrix.place(bucket)


@pytest.mark.parametrize("name", WRITERS)
def test_small_object_goes_up_comes_down_is_listed_copied_and_deleted(
    matrix: Matrix, clients: Clients, name: str, place: Place
) -> None:
    client = clients(name)
    key, copied = client.odd_key, "folder/copied.txt"
    data = random.Random(name).randbytes(100_003)
    path = client.scratch()
    path.write_bytes(data)
    client.put(place, key, path)
    assert client.get(place, key) == data
    assert client.list(place, "folder/") == {key: len(data)}
    assert client.get_range(place, key, 70_000, 90_001) == data[70_000:90_001]
    client.copy(place, key, place, copied)
    assert matrix.s3.get_object(Bucket=place.bucket, Key=copied)["Body"].read() == data
    client.delete(place, key)
    assert set(client.list(place, "folder/")) == {copied}


@pytest.mark.parametrize("name", WRITERS)
def test_object_in_parts_goes_up_comes_down_and_is_copied(
    matrix: Matrix, clients: Clients, name: str, place: Place
) -> None:
    client = clients(name)
    data = random.Random(name).randbytes(PARTS_SIZE)
    path = client.scratch()
    path.write_bytes(data)
    client.put_parts(place, "folder/parts.bin", path)
    etag = matrix.s3.head_object(Bucket=place.bucket, Key="folder/parts.bin")["ETag"]
    assert int(etag.strip('"').partition("-")[2]) > 1, f"{etag} is no multipart upload's"
    assert client.read(place, "folder/parts.bin") == data
    assert client.get_range(place, "folder/parts.bin", 5 * MIB - 3, 10 * MIB + 3) == data[5 * MIB - 3 : 10 * MIB + 3]
    client.copy(place, "folder/parts.bin", place, "folder/copied.bin")
    assert client.get(place, "folder/copied.bin") == data
    assert client.list(place, "folder/") == {"folder/copied.bin": len(data), "folder/parts.bin": len(data)}


@pytest.mark.parametrize("name", WRITERS)
def test_empty_object_goes_up_and_comes_down(matrix: Matrix, clients: Clients, name: str, place: Place) -> None:
    client = clients(name)
    path = client.scratch()
    path.touch()
    client.put(place, "nothing", path)
    assert matrix.s3.head_object(Bucket=place.bucket, Key="nothing")["ContentLength"] == 0
    assert client.read(place, "nothing") == b""
