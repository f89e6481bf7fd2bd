"""A client's connection is cut while it writes: nothing of the write is left, however the server is run."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from tests.running import RunningServer
from tests.wire import Wire, at, eventually

MIB = 1024 * 1024


def _cut(wire: Wire, target: str, body: bytes, length: int, *, reset: bool) -> None:
    """Send the head of a PUT and a part of its body, then close or reset the connection."""
    exchange = wire.send("PUT", wire.presigned("PUT", target), {"Content-Length": str(length)}, body=body)
    if reset:
        exchange.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.sock.close()


def _blobs(server: RunningServer) -> set[str]:
    return {path.name for path in (server.folder / "store" / "blobs").glob("*/*/*")}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", [0, 1_000, 3 * MIB])
def test_a_put_that_is_cut_leaves_nothing(server: RunningServer, sent: int, reset: bool) -> None:
    wire = Wire(server)
    bucket = f"cut-{sent}-{reset}".lower()
    wire.put(f"/{bucket}")
    wire.put(at(bucket, "old"), b"old")
    before = _blobs(server)
    for key in ("old", "new"):
        _cut(wire, at(bucket, key), os.urandom(sent), 5 * MIB, reset=reset)
    tmp = server.folder / "store" / "tmp"
    wire.put(at(bucket, "after"), b"after")  # the server is well, and has seen the cut by now or soon
    eventually(lambda: not any(tmp.iterdir()))
    assert wire.get(at(bucket, "new")).code == "NoSuchKey"
    assert wire.get(at(bucket, "old")).body == b"old"
    eventually(lambda: len(_blobs(server) - before) == 1)


def test_a_part_that_is_cut_is_no_part(server: RunningServer) -> None:
    wire, s3 = Wire(server), server.client()
    s3.create_bucket(Bucket="cut-parts")
    upload = {"Bucket": "cut-parts", "Key": "key"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    _cut(wire, at("cut-parts", "key", partNumber=1, uploadId=upload["UploadId"]), os.urandom(MIB), 6 * MIB, reset=False)
    s3.upload_part(**upload, PartNumber=2, Body=b"whole")
    eventually(lambda: not any((server.folder / "store" / "tmp").iterdir()))
    assert [part["PartNumber"] for part in s3.list_parts(**upload)["Parts"]] == [2]
