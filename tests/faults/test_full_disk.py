"""The disk under the data folder is full: a clear error, nothing left behind, and what was there stays."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.processes import NO_RETRIES, runs_under_way
from tests.running import RunningServer
from tests.wire import Wire, at, eventually

MIB = 1024 * 1024
DISK = 48 * MIB
OLD = os.urandom(9 * MIB)
TOO_MUCH = os.urandom(60 * MIB)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small file system in memory, as root can make one."""
    where = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(where)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield where
    subprocess.run(["umount", str(where)], check=True)


@pytest.fixture(scope="module")
def server(disk: Path) -> Iterator[RunningServer]:
    running = RunningServer(disk / "data", ("--processes", "1")).start()
    s3 = running.client()
    s3.create_bucket(Bucket="full")
    s3.put_object(Bucket="full", Key="old", Body=OLD)
    yield running
    assert running.stop() == 0, "".join(running.log)


@pytest.fixture
def s3(server: RunningServer) -> Any:
    return server.client(**NO_RETRIES)


def refused(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def blobs(server: RunningServer) -> set[str]:
    return {path.name for path in (server.folder / "store" / "blobs").glob("*/*/*")}


def assert_nothing_is_left(server: RunningServer, before: set[str]) -> None:
    eventually(lambda: not any((server.folder / "store" / "tmp").iterdir()))
    eventually(lambda: blobs(server) == before)


def test_a_put_that_does_not_fit_leaves_the_old_object(server: RunningServer, s3: Any) -> None:
    before = blobs(server)
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket="full", Key="old", Body=TOO_MUCH)
    assert refused(error) == ("StorageFull", 507)
    assert_nothing_is_left(server, before)
    assert s3.get_object(Bucket="full", Key="old")["Body"].read() == OLD


def test_a_part_that_does_not_fit_leaves_the_upload(server: RunningServer, s3: Any) -> None:
    before = blobs(server)
    upload = {"Bucket": "full", "Key": "parts"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    with pytest.raises(ClientError) as error:
        s3.upload_part(**upload, PartNumber=1, Body=TOO_MUCH)
    assert refused(error) == ("StorageFull", 507)
    assert_nothing_is_left(server, before)
    assert not s3.list_parts(**upload).get("Parts")
    s3.abort_multipart_upload(**upload)


def test_with_not_a_byte_free_writes_are_refused_and_reads_go_on(server: RunningServer, s3: Any, disk: Path) -> None:
    before = blobs(server)
    filling = disk / "filling"
    with filling.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    for i, size in enumerate((0, 10, 100_000)):
        with pytest.raises(ClientError) as error:
            s3.put_object(Bucket="full", Key=f"new-{i}", Body=bytes(size))
        assert refused(error) == ("StorageFull", 507)
    assert s3.get_object(Bucket="full", Key="old")["Body"].read() == OLD
    filling.unlink()
    assert_nothing_is_left(server, before)
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="full")["Contents"]] == ["old"]
    s3.put_object(Bucket="full", Key="new", Body=b"fits")
    assert s3.get_object(Bucket="full", Key="new")["Body"].read() == b"fits"


def test_a_result_that_does_not_fit_is_an_error_and_leaves_nothing(server: RunningServer) -> None:
    wire = Wire(server)
    answer = wire.get(at("full", "old", etl="grow", etl_args=80 * MIB), {"range": "bytes=0-9"})
    assert (answer.status, answer.code) == (507, "StorageFull"), answer
    streamed = wire.get(at("full", "old", etl="grow", etl_args=81 * MIB))
    assert not streamed.ended or streamed.status >= 500
    eventually(lambda: not runs_under_way(server))
    assert wire.get(at("full", "old", etl="grow", etl_args=MIB)).status == 200
