"""The contract: ranges, conditions and empty results, judged on the transformed bytes and before any run."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

import pytest
from boto3.s3.transfer import TransferConfig
from transom_test_transformers import grow_bytes

from tests.running import RunningServer
from tests.wire import Wire, at
from transom.client.admin import AdminClient

MIB = 1024 * 1024
SIZE = 5000


@pytest.fixture
def target(wire: Wire, bucket: str) -> str:
    """An object that `grow` makes SIZE bytes of; its source is shorter."""
    wire.put(at(bucket, "k"), b"short")
    return at(bucket, "k", etl="grow", etl_args=SIZE)


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-4999", 0, SIZE),
        ("bytes=0-8388607", 0, SIZE),
        ("bytes=100-199", 100, 200),
        ("bytes=4999-", 4999, SIZE),
        ("bytes=4000-9999", 4000, SIZE),
        ("bytes=-1", 4999, SIZE),
        ("bytes=-9999", 0, SIZE),
    ],
)
def test_range_is_of_the_transformed_bytes(wire: Wire, target: str, asked: str, start: int, stop: int) -> None:
    answer = wire.get(target, {"Range": asked})
    assert (answer.status, answer.ended) == (206, True)
    assert answer.body == grow_bytes(stop, start)
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(stop - start)
    head = wire.head(target, {"Range": asked})
    assert (head.status, head.headers["content-range"]) == (206, answer.headers["content-range"])
    assert head.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=5-1", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", "bytes=-"])
def test_range_that_says_nothing_gives_all_of_it(wire: Wire, target: str, asked: str) -> None:
    answer = wire.get(target, {"Range": asked})
    assert (answer.status, answer.body) == (200, grow_bytes(SIZE))
    assert "content-range" not in answer.headers


@pytest.mark.parametrize("asked", ["bytes=5000-", "bytes=5000-5001", "bytes=99999999999-", "bytes=-0"])
def test_range_past_the_end_is_416_with_the_actual_size(wire: Wire, target: str, asked: str) -> None:
    refused = wire.get(target, {"Range": asked})
    assert (refused.status, refused.code) == (416, "InvalidRange")
    assert refused.element("ActualObjectSize") == str(SIZE)
    assert refused.element("RangeRequested") == asked
    head = wire.head(target, {"Range": asked})
    assert (head.status, head.body) == (416, b"")


def test_empty_result_is_an_empty_200_and_any_range_of_it_416(wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "full"), b"not empty")
    wire.put(at(bucket, "bare"), b"")
    for target in (
        at(bucket, "full", etl="empty"),
        at(bucket, "bare", etl="upper"),
        at(f"{bucket}--etl--empty", "full"),
    ):
        whole = wire.get(target)
        assert (whole.status, whole.body, whole.headers["content-length"]) == (200, b"", "0")
        assert wire.head(target).headers["content-length"] == "0"
        for asked in ("bytes=0-8388607", "bytes=-5", "bytes=0-"):
            refused = wire.get(target, {"Range": asked})
            assert (refused.status, refused.element("ActualObjectSize")) == (416, "0")
        part = wire.get(target + ("&" if "?" in target else "?") + "partNumber=1")
        assert (part.status, part.body, part.etag) == (200, b"", whole.etag)


def test_an_empty_source_can_have_a_full_result(wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "bare"), b"")
    assert wire.get(at(bucket, "bare", etl="hello_world>>md5")).body == b"ed076287532e86365e841e92bfc50d8c"
    assert wire.get(at(bucket, "bare", etl="append"), {"Range": "bytes=0-0"}).body == b"!"


def test_parallel_ranges_of_a_large_result_make_up_the_whole(wire: Wire, bucket: str, log: Path) -> None:
    """From one run, though all of them come before it is made."""
    wire.put(at(bucket, "k"), b"x")
    size = 9 * MIB + 17
    target = at(bucket, "k", etl="grow>>count", etl_args=f'[{size}, "{log}"]')

    def read(start: int) -> bytes:
        answer = wire.get(target, {"Range": f"bytes={start}-{start + MIB - 1}"})
        assert (answer.status, answer.ended) == (206, True)
        return answer.body

    with ThreadPoolExecutor(10) as pool:
        assert b"".join(pool.map(read, range(0, size, MIB))) == grow_bytes(size)
    assert log.read_text().count("run") == 1


def test_conditions_are_judged_before_any_run(wire: Wire, bucket: str, log: Path) -> None:
    wire.put(at(bucket, "k"), b"data")
    source = wire.head(at(bucket, "k"))
    target = at(bucket, "k", etl="count>>reverse", etl_args=f'["{log}", null]')
    view_etag = _identity(wire, target, log)
    modified = parsedate_to_datetime(source.headers["last-modified"]).timestamp()
    before, after = formatdate(modified - 10, usegmt=True), formatdate(modified + 10, usegmt=True)
    cases = [
        ({"If-Match": source.etag}, 412),  # the source's identity isn't the result's
        ({"If-Match": '"nothing-1"'}, 412),
        ({"If-Match": f'"a", {source.etag}'}, 412),
        ({"If-None-Match": view_etag}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": f'"a", {view_etag}'}, 304),
        ({"If-Modified-Since": after}, 304),
        ({"If-Unmodified-Since": before}, 412),
        ({"If-Match": view_etag, "If-None-Match": view_etag}, 304),
        ({"If-Match": '"nothing-1"', "Range": "bytes=0-1"}, 412),
        ({"If-None-Match": view_etag, "Range": "bytes=0-1"}, 304),
    ]
    for headers, status in cases:
        for method in ("GET", "HEAD"):
            answer = wire(method, target, headers)
            assert answer.status == status, (method, headers, answer)
            if status == 304:
                assert (answer.body, answer.etag) == (b"", view_etag)
                assert "content-length" not in answer.headers or answer.headers["content-length"] == "0"
            elif method == "GET":
                assert answer.code == "PreconditionFailed"
    assert log.read_text() == ""  # nothing has run so far
    passing = [
        {"If-Match": view_etag},
        {"If-Match": "*"},
        {"If-Match": f'"a", {view_etag}'},
        {"If-None-Match": source.etag},
        {"If-Modified-Since": before},
        {"If-Unmodified-Since": after},
        {"If-Match": view_etag, "If-Unmodified-Since": before},
        {"If-None-Match": source.etag, "If-Modified-Since": after},
    ]
    for headers in passing:
        answer = wire.get(target, headers)
        assert (answer.status, answer.body) == (200, b"atad"), headers
    assert log.read_text().count("run") == 1


def test_if_range_of_the_result_keeps_the_range_and_any_other_drops_it(wire: Wire, target: str) -> None:
    whole = wire.get(target)
    part = {"Range": "bytes=10-19"}
    kept = wire.get(target, {**part, "If-Range": whole.etag})
    assert (kept.status, kept.body) == (206, grow_bytes(20, 10))
    kept = wire.get(target, {**part, "If-Range": whole.headers["last-modified"]})
    assert kept.status == 206
    source = wire.head(target.partition("?")[0]).etag
    for other in (source, '"nothing-1"', "W/" + whole.etag, formatdate(time.time() - 9999, usegmt=True)):
        dropped = wire.get(target, {**part, "If-Range": other})
        assert (dropped.status, dropped.body) == (200, whole.body)


def test_if_match_with_the_etag_of_a_replaced_source_is_412(wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"old")
    target = at(bucket, "k", etl="upper")
    old = wire.get(target)
    wire.put(at(bucket, "k"), b"new")
    assert wire.get(target, {"If-Match": old.etag, "Range": "bytes=0-0"}).status == 412
    assert wire.get(target, {"If-None-Match": old.etag}).body == b"NEW"
    dropped = wire.get(target, {"If-Range": old.etag, "Range": "bytes=0-0"})
    assert (dropped.status, dropped.body) == (200, b"NEW")


def test_parallel_download_of_a_large_output_is_byte_identical(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, tmp_path: Path
) -> None:
    """As boto3 does it: HEAD, then ranges under If-Match, through a view."""
    wire.put(at(bucket, "k"), b"x")
    view, size = f"view-of-{bucket}", 30 * MIB + 1
    admin.create_view(view, bucket, "grow", args=size)
    server.client().download_file(
        view, "k", str(tmp_path / "out"), Config=TransferConfig(multipart_chunksize=4 * MIB, max_concurrency=8)
    )
    admin.remove_view(view)
    assert (tmp_path / "out").read_bytes() == grow_bytes(size)


def _identity(wire: Wire, target: str, log: Path) -> str:
    """The result's ETag, learnt without a run: `reverse` and `count` don't tell their size, a 304 needs none."""
    answer = wire.get(target, {"If-None-Match": "*"})
    assert answer.status == 304 and log.read_text() == ""
    return answer.etag
