"""The contract: one identity for a result on every kind of answer, exact lengths, and how a body is framed."""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from transom_test_transformers import grow_bytes

from tests.running import RunningServer
from tests.wire import Wire, at
from transom.client.admin import AdminClient

MIB = 1024 * 1024


def listed_etag(wire: Wire, bucket: str, prefix: str) -> str:
    page = wire.get(f"/{bucket}?list-type=2&prefix={quote(prefix, safe='')}")
    assert page.status == 200, page
    return page.element("ETag").replace("&quot;", '"')


@pytest.mark.parametrize("etl", ["upper", "grow", "upper>>md5", "grow>>reverse"])
def test_etag_is_the_same_on_list_head_200_206_304_and_412(wire: Wire, bucket: str, etl: str) -> None:
    wire.put(at(bucket, "k/ü x"), b"some text")
    view = f"{bucket}--etl--{etl.replace('>>', '~')}"
    target, viewed = at(bucket, "k/ü x", etl=etl), at(view, "k/ü x")
    etag = listed_etag(wire, view, "k/")  # before any run
    assert etag.endswith('-1"') and len(etag) == 36
    answers = [
        wire.head(target),
        wire.head(viewed),
        wire.get(target),
        wire.get(viewed),
        wire.get(target, {"Range": "bytes=0-1"}),
        wire.get(viewed, {"Range": "bytes=-2"}),
        wire.get(target, {"If-None-Match": etag}),
        wire.head(viewed, {"If-None-Match": etag}),
    ]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 206, 206, 304, 304]
    assert {answer.etag for answer in answers} == {etag}
    assert listed_etag(wire, view, "k/") == etag
    refused = wire.get(target, {"If-Match": '"0123"'})
    assert (refused.status, refused.code) == (412, "PreconditionFailed")
    assert wire.get(viewed, {"If-Match": etag}).status == 200
    assert len({answer.headers["last-modified"] for answer in answers}) == 1


def test_identity_depends_on_key_bytes_pipeline_and_arguments_and_on_nothing_else(wire: Wire, bucket: str) -> None:
    for key, data in (("a", b"one"), ("b", b"one")):
        wire.put(at(bucket, key), data)

    def etag(key: str, **query: str) -> str:
        return wire.head(at(bucket, key, **query)).etag

    known = [
        etag("a", etl="append"),
        etag("b", etl="append"),
        etag("a", etl="append", etl_args='"?"'),
        etag("a", etl="upper>>append"),
        etag("a", etl="append>>upper"),
        etag("a", etl="append>>append"),
        wire.head(at(bucket, "a")).etag,
    ]
    assert len(set(known)) == len(known)
    # the default said out loud, by name, by scalar or as an option, is the same question
    same = [
        etag("a", etl="append", etl_args='"!"'),
        etag("a", etl="append", etl_args='{"text": "!"}'),
        etag("a", etl="append", etl_args='["!"]'),
        etag("a", **{"etl": "append", "append.text": "!"}),
    ]
    assert set(same) == {known[0]}
    wire.put(at(bucket, "a"), b"two")
    replaced = etag("a", etl="append")
    assert replaced not in known
    assert wire.get(at(bucket, "a", etl="append")).body == b"two!"
    wire.put(at(bucket, "a"), b"one")
    assert etag("a", etl="append") == known[0]


def test_the_only_version_there_is_may_be_named(server: RunningServer, wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"text")
    view, s3 = f"{bucket}--etl--upper", server.client()
    (version,) = s3.list_object_versions(Bucket=view)["Versions"]
    assert version["VersionId"] == "null"
    for target in (at(bucket, "k", etl="upper", versionId="null"), at(view, "k", versionId="null")):
        assert (wire.get(target).etag, wire.head(target).etag) == (version["ETag"], version["ETag"])
        missing = wire.get(target.replace("null", "other"))
        assert missing.status in (400, 404) and missing.code in ("NoSuchVersion", "InvalidArgument")


def test_a_changed_etl_gives_another_identity_and_the_same_one_again_does_not(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    wire.put(at(bucket, "k"), b"text")
    etl = name("mark")
    first = admin.init_etl(etl, "append", {"text": "1"})
    before = wire.get(at(bucket, "k", etl=etl))
    assert before.body == b"text1"
    assert admin.init_etl(etl, "append", {"text": "1"}).revision == first.revision
    assert wire.get(at(bucket, "k", etl=etl)).etag == before.etag
    assert admin.init_etl(etl, "append", {"text": "2"}).revision > first.revision
    after = wire.get(at(bucket, "k", etl=etl))
    assert after.body == b"text2" and after.etag != before.etag
    assert wire.get(at(bucket, "k", etl=etl), {"If-Match": before.etag}).status == 412
    admin.init_etl(etl, "append", {"text": "1"})
    assert wire.get(at(bucket, "k", etl=etl)).etag != before.etag  # a revision is never used twice
    admin.remove_etl(etl)


def test_last_modified_is_the_later_of_source_and_revision(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    def modified(target: str) -> float:
        return parsedate_to_datetime(wire.head(target).headers["last-modified"]).timestamp()

    wire.put(at(bucket, "k"), b"text")
    assert modified(at(bucket, "k", etl="upper")) == modified(at(bucket, "k"))
    etl = name("dated")
    time.sleep(1.0 - time.time() % 1.0)  # HTTP dates hold whole seconds
    admin.init_etl(etl, "upper")
    revised = modified(at(bucket, "k", etl=etl))
    assert revised > modified(at(bucket, "k"))
    time.sleep(1.0 - time.time() % 1.0)
    wire.put(at(bucket, "k"), b"later")
    assert modified(at(bucket, "k", etl=etl)) == modified(at(bucket, "k")) > revised
    admin.remove_etl(etl)


@pytest.mark.parametrize("size", [0, 1, 5000, MIB - 1, MIB, MIB + 1, 3 * MIB])
@pytest.mark.parametrize("first", ["head", "get", "range"])
def test_head_says_exactly_what_get_gives(wire: Wire, bucket: str, size: int, first: str) -> None:
    """Whatever is asked first, and so makes the result."""
    wire.put(at(bucket, first), b"source of another size")
    target = at(bucket, first, etl="grow", etl_args=size)
    if first == "get":
        assert wire.get(target).body == grow_bytes(size)
    if first == "range":
        wire.get(target, {"Range": "bytes=0-0"})
    head = wire.head(target)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(size), b"")
    assert head.headers["accept-ranges"] == "bytes"
    assert "transfer-encoding" not in head.headers
    whole = wire.get(target)
    assert whole.ended and whole.body == grow_bytes(size)
    assert whole.headers["content-length"] == str(size)  # it is cached by now
    assert whole.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB])
@pytest.mark.parametrize("cached", [True, False])
def test_a_result_of_up_to_1_mib_has_its_length_on_the_first_get(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str], size: int, cached: bool
) -> None:
    wire.put(at(bucket, "k"), b"x")
    etl = name("sized")
    admin.init_etl(etl, "grow", {"size": size}, cache=cached)
    first = wire.get(at(bucket, "k", etl=etl))
    assert first.ended and first.headers["content-length"] == str(size)
    assert first.body == grow_bytes(size)
    admin.remove_etl(etl)


@pytest.mark.parametrize("cached", [True, False])
def test_only_a_longer_one_of_unknown_size_is_chunked_and_never_on_http_1_0(
    wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str], tmp_path: Path, cached: bool
) -> None:
    wire.put(at(bucket, "k"), b"x")
    etl, size = name("long"), MIB + 1
    # held at its second MiB, so that it can't be whole before it is answered
    gate = tmp_path / "gate"
    admin.init_etl(etl, "tap", {"before": size, "after": 5, "gate": str(gate)}, cache=cached)
    with wire.open("GET", at(bucket, "k", etl=etl)) as exchange:
        exchange.head()
        assert exchange.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in exchange.headers
        exchange.read(size)
        gate.touch()
        answer = exchange.whole()
    assert answer.ended and answer.body == b"b" * size + b"a" * 5
    again = wire.get(at(bucket, "k", etl=etl))
    assert again.ended and again.body == answer.body
    assert again.chunked is not cached
    if cached:
        assert again.headers["content-length"] == str(size + 5)
    wire.put(at(bucket, "k"), b"another")
    old = wire.get(at(bucket, "k", etl=etl), version="1.0")
    assert old.ended and not old.chunked
    assert old.headers["content-length"] == str(size + 5) and old.body == answer.body
    admin.remove_etl(etl)


def test_a_long_result_of_known_size_has_its_length_at_once(wire: Wire, bucket: str) -> None:
    data = grow_bytes(3 * MIB)
    wire.put(at(bucket, "k"), data)
    answer = wire.get(at(bucket, "k", etl="upper"))
    assert answer.headers["content-length"] == str(len(data))
    assert answer.ended and answer.body == data.upper()


def test_checksums_and_parts_of_the_source_never_show(server: RunningServer, wire: Wire, bucket: str) -> None:
    s3 = server.client()
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="CRC32")["UploadId"]
    parts = []
    for number, body in ((1, b"p" * (5 * MIB)), (2, b"q")):
        part = s3.upload_part(
            Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=body, ChecksumAlgorithm="CRC32"
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
    assert wire.head(at(bucket, "k"), {"x-amz-checksum-mode": "ENABLED"}).headers["x-amz-checksum-crc32"]
    for target in (at(bucket, "k", etl="upper"), at(f"{bucket}--etl--upper", "k")):
        for headers in ({}, {"Range": "bytes=0-9"}):
            for method in ("HEAD", "GET"):
                for mode in ({}, {"x-amz-checksum-mode": "ENABLED"}):
                    names = wire(method, target, {**headers, **mode}).headers.keys()
                    stray = [name for name in names if name.startswith(("x-amz-checksum", "x-amz-mp"))]
                    assert stray == [], (method, headers, mode)


def test_a_whole_result_has_a_checksum_of_its_own_only_if_asked(wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"text", {"x-amz-checksum-crc32": _crc(b"text")})
    target = at(bucket, "k", etl="append")
    asked = {"x-amz-checksum-mode": "ENABLED"}
    for _ in range(2):  # run, and cached
        answer = wire.get(target, asked)
        assert answer.headers["x-amz-checksum-crc32"] == _crc(b"text!")
        assert answer.headers["x-amz-checksum-type"] == "FULL_OBJECT"
        assert not [name for name in wire.get(target).headers if name.startswith("x-amz-checksum")]
        partial = wire.get(target, {**asked, "Range": "bytes=0-1"})
        assert not [name for name in partial.headers if name.startswith("x-amz-checksum")]


def test_boto3_reads_with_checksum_validation_whenever_it_can(server: RunningServer, wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"text" * 100, {"x-amz-checksum-crc32": _crc(b"text" * 100)})
    for wanted in ("when_supported", "when_required"):
        s3 = server.client(response_checksum_validation=wanted)
        answer = s3.get_object(Bucket=f"{bucket}--etl--upper", Key="k")
        assert answer["Body"].read() == b"TEXT" * 100


def test_the_transformer_says_the_content_type(wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"text", {"Content-Type": "text/fancy"})
    for method in ("HEAD", "GET"):
        assert wire(method, at(bucket, "k", etl="upper")).headers["content-type"] == "text/fancy"
        assert wire(method, at(bucket, "k", etl="tell")).headers["content-type"] == "application/json"
        assert wire(method, at(bucket, "k", etl="tell>>upper")).headers["content-type"] == "application/json"
    told = json.loads(wire.get(at(bucket, "k", etl="md5>>tell")).body)
    assert told["content_type"] == wire.head(at(bucket, "k", etl="md5")).headers["content-type"]
    assert told["size"] == 32


def test_part_1_is_the_whole_result_and_there_is_no_part_2(server: RunningServer, wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"text")
    whole = wire.get(at(bucket, "k", etl="append"))
    for target in (at(bucket, "k", etl="append", partNumber=1), at(f"{bucket}--etl--append", "k", partNumber=1)):
        part = wire.get(target)
        assert (part.status, part.body, part.etag) == (206, b"text!", whole.etag)
        assert part.headers["content-range"] == "bytes 0-4/5"
        head = wire.head(target)
        assert (head.status, head.headers["content-length"], head.etag) == (206, "5", whole.etag)
        assert "x-amz-mp-parts-count" not in {**part.headers, **head.headers}
        for number in (2, 10000):
            refused = wire.get(target.replace("partNumber=1", f"partNumber={number}"))
            assert (refused.status, refused.code) == (416, "InvalidPartNumber")
            assert wire.head(target.replace("partNumber=1", f"partNumber={number}")).status == 416
    empty = wire.get(at(bucket, "k", etl="empty", partNumber=1))
    assert (empty.status, empty.body) == (200, b"")


def test_response_overrides_and_the_source_cache_control_show_on_success_only(wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"text", {"Cache-Control": "max-age=60", "Content-Disposition": "inline"})
    answer = wire.get(at(bucket, "k", **{"etl": "upper", "response-content-type": "text/css"}))
    assert answer.headers["content-type"] == "text/css"
    assert answer.headers["cache-control"] == "max-age=60"
    assert "cache-control" not in wire.get(at(bucket, "k", etl="fail")).headers
    assert "cache-control" not in wire.get(at(bucket, "k", etl="upper"), {"If-Match": '"x"'}).headers


def test_an_object_of_every_kind_of_name_is_transformed(server: RunningServer, wire: Wire, bucket: str) -> None:
    s3 = server.client()
    for key in ("a//b", "trailing/", "per%20cent", "plus+sign", "q?u=e", "ünï/日本", "a>>b", "~tilde~", "."):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
        viewed = s3.get_object(Bucket=f"{bucket}--etl--append", Key=key)
        assert viewed["Body"].read() == key.encode() + b"!"


def _crc(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4)).decode()
