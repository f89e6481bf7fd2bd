"""The contract: after a late failure the body never looks finished; shown on raw sockets, however it is served."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError
from transom_test_transformers import grow_bytes

from tests.running import RunningServer
from tests.wire import Wire, at, eventually
from transom.client.admin import AdminClient

MIB = 1024 * 1024
FOLLOWS = {"x-transom-follows-redirects": "1"}


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("size", [MIB + 1, 5 * MIB])
def test_late_failure_never_sends_the_closing_chunk(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str], tmp_path: Path, size: int, cached: bool
) -> None:
    etl, gate = name("late"), tmp_path / "gate"
    admin.init_etl(etl, "tap", {"before": size, "gate": str(gate), "fail": True}, cache=cached)
    wire.put(at(bucket, "k"), b"x")
    with wire.open("GET", at(bucket, "k", etl=etl)) as exchange:
        exchange.head()
        assert (exchange.status, exchange.headers["transfer-encoding"]) == (200, "chunked")
        exchange.read(size)  # all of it is out before it fails
        gate.touch()
        answer = exchange.whole()
    assert not answer.ended
    assert answer.body == b"b" * size
    again = wire.get(at(bucket, "k", etl=etl), {"Range": "bytes=0-9"})  # and what was made isn't kept
    assert (again.status, again.code) == (500, "EtlFailed")
    admin.remove_etl(etl)


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
def test_late_failure_at_once_is_an_error_or_an_unfinished_body_never_a_whole_one(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str], cached: bool
) -> None:
    etl = name("late")
    admin.init_etl(etl, "fail_late", cache=cached)
    wire.put(at(bucket, "k"), b"x")
    for size in (0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 4 * MIB + 7):
        answer = wire.get(at(bucket, "k", etl=etl, etl_args=size))
        if answer.status == 200:
            assert not answer.ended and size > MIB
            assert set(answer.body) <= {ord("x")} and len(answer.body) <= size
        else:
            assert (answer.status, answer.code, answer.ended) == (500, "EtlFailed", True)
        old = wire.get(at(bucket, "k", etl=etl, etl_args=size), version="1.0")
        assert old.status == 500 or not old.ended
    admin.remove_etl(etl)


def test_late_failure_of_a_known_length_leaves_the_body_short(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    """`double` tells its size ahead; the stage after it fails."""
    etl = name("uncached")
    admin.init_etl(etl, "double", cache=False)
    wire.put(at(bucket, "k"), b"x" * 2 * MIB)
    answer = wire.get(at(bucket, "k", etl=f"{etl}>>fail_late", etl_args=f"[null, {3 * MIB}]"))
    assert answer.status == 500 or not answer.ended
    admin.remove_etl(etl)


def test_target_asked_directly_never_sends_the_closing_chunk_either(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str], tmp_path: Path
) -> None:
    if "--targets" not in server.args:
        pytest.skip("only a gateway of its own redirects")
    etl, gate, size = name("late"), tmp_path / "gate", 2 * MIB
    admin.init_etl(etl, "tap", {"before": size, "gate": str(gate), "fail": True})
    wire.put(at(bucket, "k"), b"x")
    redirect = wire.get(at(bucket, "k", etl=etl), FOLLOWS)
    assert redirect.status == 307
    with requests.get(redirect.headers["location"], stream=True, timeout=30) as answer:
        assert answer.status_code == 200
        got = bytearray()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            for piece in answer.iter_content(64 * 1024):
                got += piece
                if len(got) == size:
                    gate.touch()
    assert got == b"b" * size
    admin.remove_etl(etl)


def test_real_clients_notice(server: RunningServer, wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"x")
    s3 = server.client(retries={"max_attempts": 1}, read_timeout=20)
    noticed = (ClientError, IncompleteReadError, ResponseStreamingError, ReadTimeoutError)
    with pytest.raises(noticed):
        s3.get_object(Bucket=f"{bucket}--etl--fail_late", Key="k")["Body"].read()
    url = server.client(signature_version="s3v4").generate_presigned_url(
        "get_object", {"Bucket": f"{bucket}--etl--fail_late", "Key": "k"}
    )
    assert requests.get(url, timeout=20).status_code == 500


def test_source_replaced_while_it_is_read_gives_old_bytes_whole_or_none(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str], log: Path, tmp_path: Path
) -> None:
    """The run goes on with the version it began with; whoever asks afterwards gets the new one."""
    etl, gate, size = name("slow"), tmp_path / "gate", 2 * MIB
    admin.init_etl(etl, "tap", {"log": str(log), "before": size, "gate": str(gate), "after": 1})
    wire.put(at(bucket, "k"), b"old")
    with wire.open("GET", at(bucket, "k", etl=etl)) as exchange:
        exchange.head()
        old = exchange.headers["etag"]
        wire.put(at(bucket, "k"), b"new")
        gate.touch()
        answer = exchange.whole()
    assert answer.ended and answer.body == b"b" * size + b"a"
    assert wire.head(at(bucket, "k", etl=etl)).etag != old
    eventually(lambda: log.read_text().count("end") == 2)
    admin.remove_etl(etl)


def test_a_long_download_meets_no_deadline_of_the_transform(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str], log: Path
) -> None:
    """A client that reads slowly is no slow transformer: the bytes wait for it, cached or not."""
    for cached in (True, False):
        etl, size = name("slow"), 40 * MIB
        admin.init_etl(etl, "grow", {"size": size}, cache=cached, timeout_s=1.5, concurrency=2)
        wire.put(at(bucket, etl), b"x")
        with wire.open("GET", at(bucket, etl, etl=etl)) as exchange:
            exchange.head()
            assert exchange.status == 200
            # longer than the deadline, with more left than sockets and buffers hold
            time.sleep(3.0)
            answer = exchange.whole()
        assert answer.ended and answer.body == grow_bytes(size)
        assert wire.get(at(bucket, etl, etl=etl), {"Range": "bytes=0-0"}).status == 206  # the circuit is closed
        admin.remove_etl(etl)
