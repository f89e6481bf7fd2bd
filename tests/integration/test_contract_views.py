"""Views: listings with derived ETags, sizes by policy, renamed keys, reads of every kind, and no writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from transom_test_transformers import grow_bytes

from tests.running import RunningServer
from tests.wire import Wire, at
from transom.client.admin import AdminClient

MIB = 1024 * 1024


def code_of(call: Callable[..., Any], **parameters: Any) -> tuple[int, str]:
    """The status and code that a boto3 call is refused with."""
    with pytest.raises(ClientError) as refused:
        call(**parameters)
    response = refused.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def listing(server: RunningServer, view: str, **parameters: Any) -> dict[str, dict[str, Any]]:
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=view, **parameters)
    return {entry["Key"]: entry for page in pages for entry in page.get("Contents", ())}


def test_list_has_derived_etags_and_exact_sizes_where_known(server: RunningServer, wire: Wire, bucket: str) -> None:
    for key, data in (("a", b"one"), ("b/c", b"three"), ("b/d", b"")):
        wire.put(at(bucket, key), data)
    s3, view = server.client(), f"{bucket}--etl--append"  # tells its size ahead
    entries = listing(server, view)
    assert {key: entry["Size"] for key, entry in entries.items()} == {"a": 4, "b/c": 6, "b/d": 1}
    for key, entry in entries.items():
        head = s3.head_object(Bucket=view, Key=key)
        assert (entry["ETag"], entry["Size"]) == (head["ETag"], head["ContentLength"])
        assert entry["LastModified"].replace(microsecond=0) == head["LastModified"]
        assert entry["ETag"] != s3.head_object(Bucket=bucket, Key=key)["ETag"]
        assert s3.get_object(Bucket=view, Key=key, IfMatch=entry["ETag"])["Body"].read()  # as `aws s3 cp -r` does
    assert not any("ChecksumAlgorithm" in entry for entry in entries.values())
    grouped = s3.list_objects_v2(Bucket=view, Delimiter="/")
    assert [each["Prefix"] for each in grouped["CommonPrefixes"]] == ["b/"]
    assert list(listing(server, view, Prefix="b/")) == ["b/c", "b/d"]
    assert list(listing(server, view, StartAfter="b/c")) == ["b/d"]
    assert list(listing(server, view, PaginationConfig={"PageSize": 1})) == ["a", "b/c", "b/d"]
    versions = s3.list_object_versions(Bucket=view)["Versions"]
    assert [(each["Key"], each["ETag"]) for each in versions] == [(k, e["ETag"]) for k, e in entries.items()]


def test_policy_source_lists_the_source_size_and_says_so_until_the_true_one_is_known(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    view = name("sized")
    admin.create_view(view, bucket, "grow", args=2000, sizes="source")
    for key in ("a", "b"):
        wire.put(at(bucket, key), b"12345")
    target = f"/{view}?list-type=2"
    assert wire.get(target).headers["x-transom-sizes"] == "source"
    assert {entry["Size"] for entry in listing(server, view).values()} == {5}
    assert wire.get(at(view, "a")).body == grow_bytes(2000)
    assert {key: entry["Size"] for key, entry in listing(server, view).items()} == {"a": 2000, "b": 5}
    wire.head(at(view, "b"))
    assert {entry["Size"] for entry in listing(server, view).values()} == {2000}
    assert "x-transom-sizes" not in wire.get(f"/{bucket}?list-type=2").headers
    admin.remove_view(view)


def test_policy_materialise_lists_true_sizes_and_leaves_out_what_is_skipped(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    view, skipping, failing = name("true"), name("skipping"), name("failing")
    admin.create_view(view, bucket, "grow", args=2000, sizes="materialise")
    admin.create_view(skipping, bucket, "skip", sizes="materialise")
    admin.create_view(failing, bucket, "fail", sizes="materialise")
    for number in range(12):
        wire.put(at(bucket, f"k{number:02}"), b"12345")
    entries = listing(server, view)
    assert [entry["Size"] for entry in entries.values()] == [2000] * 12
    assert listing(server, skipping) == {}
    assert [*listing(server, failing)] == [*entries]  # it is there: the GET says what is wrong with it
    assert "x-transom-sizes" not in wire.get(f"/{view}?list-type=2").headers  # all of them are true
    assert wire.get(f"/{failing}?list-type=2").headers["x-transom-sizes"] == "source"
    for each in (view, skipping, failing):
        admin.remove_view(each)


def test_what_is_left_out_is_404_naming_the_etl_and_not_listed_once_known(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    view = name("skipping")
    admin.create_view(view, bucket, "skip", sizes="source")
    for key in ("a", "b"):
        wire.put(at(bucket, key), b"secret bytes")
    assert [*listing(server, view)] == ["a", "b"]  # not known yet
    for method in ("GET", "HEAD"):
        refused = wire(method, at(view, "a"))
        assert refused.status == 404
        if method == "GET":
            assert refused.code == "NoSuchKey"
            assert "'skip'" in refused.message and "secret" not in refused.message
    assert [*listing(server, view)] == ["b"]
    wire.put(at(bucket, "a"), b"another")
    assert [*listing(server, view)] == ["a", "b"]  # nothing is known of the new one
    assert [*listing(server, bucket)] == ["a", "b"]
    assert [*listing(server, f"{bucket}--etl--skip")] == []  # by default what is left out is found out first


def test_view_renames_keys_both_ways(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    view = name("renamed")
    admin.create_view(view, bucket, "append", ext={"jpg": "webp", "tiff": "png"})
    for key in ("cat.jpg", "dir/dog.jpg", "dir.jpg/x.txt", "plain", "scan.tiff", "z.jpg.bak", "é.jpg"):
        wire.put(at(bucket, key), key.encode())
    shown = ["cat.webp", "dir.jpg/x.txt", "dir/dog.webp", "plain", "scan.png", "z.jpg.bak", "é.webp"]
    assert [*listing(server, view)] == shown
    assert [*listing(server, view, PaginationConfig={"PageSize": 1})] == shown
    assert [*listing(server, view, Prefix="cat.w")] == ["cat.webp"]
    assert [*listing(server, view, Prefix="dir/")] == ["dir/dog.webp"]
    assert [*listing(server, view, StartAfter="dir/dog.webp")] == shown[3:]
    s3 = server.client()
    for key, source in (("cat.webp", "cat.jpg"), ("dir/dog.webp", "dir/dog.jpg"), ("plain", "plain")):
        answer = s3.get_object(Bucket=view, Key=key)
        assert answer["Body"].read() == source.encode() + b"!"
        assert answer["ETag"] == listing(server, view)[key]["ETag"]
    for hidden in ("cat.jpg", "scan.tiff", "missing.webp"):
        assert code_of(s3.get_object, Bucket=view, Key=hidden) == (404, "NoSuchKey")
    admin.remove_view(view)


def test_a_view_appears_among_the_buckets_and_goes_again(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    view, s3 = name("listed"), server.client()
    admin.create_view(view, bucket, "upper")
    assert view in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    s3.head_bucket(Bucket=view)
    assert "LocationConstraint" in s3.get_bucket_location(Bucket=view)
    admin.remove_view(view)
    assert view not in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    assert code_of(s3.list_objects_v2, Bucket=view) == (404, "NoSuchBucket")
    wire.put(at(bucket, "k"), b"still there")
    assert wire.get(at(bucket, "k")).body == b"still there"


def test_every_write_to_a_view_is_405(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    made = name("closed")
    admin.create_view(made, bucket, "upper")
    wire.put(at(bucket, "k"), b"kept")
    s3 = server.client()
    for view in (made, f"{bucket}--etl--upper"):
        key = {"Bucket": view, "Key": "k"}
        upload = {**key, "UploadId": "none"}
        source = {"CopySource": {"Bucket": bucket, "Key": "k"}}
        refusals = [
            code_of(s3.put_object, **key, Body=b"x"),
            code_of(s3.put_object, Bucket=view, Key="new", Body=b"x"),
            code_of(s3.delete_object, **key),
            code_of(s3.delete_objects, Bucket=view, Delete={"Objects": [{"Key": "k"}]}),
            code_of(s3.copy_object, **key, **source),
            code_of(s3.create_multipart_upload, **key),
            code_of(s3.upload_part, **upload, PartNumber=1, Body=b"x"),
            code_of(s3.upload_part_copy, **upload, PartNumber=1, **source),
            code_of(
                s3.complete_multipart_upload, **upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": "x"}]}
            ),
            code_of(s3.put_object_tagging, **key, Tagging={"TagSet": []}),
            code_of(s3.delete_object_tagging, **key),
            code_of(s3.put_object_acl, **key, ACL="private"),
            code_of(s3.put_bucket_acl, Bucket=view, ACL="private"),
            code_of(s3.delete_bucket, Bucket=view),
        ]
        assert refusals == [(405, "MethodNotAllowed")] * len(refusals)
    assert wire.get(at(bucket, "k")).body == b"kept"
    assert code_of(s3.create_bucket, Bucket=f"{bucket}--etl--upper") == (400, "InvalidBucketName")
    status, code = code_of(s3.create_bucket, Bucket=made)
    assert (status, code) in [(405, "MethodNotAllowed"), (409, "BucketAlreadyOwnedByYou"), (409, "BucketAlreadyExists")]
    admin.remove_view(made)


def test_copy_from_a_view_stores_the_transformed_bytes(server: RunningServer, wire: Wire, bucket: str) -> None:
    s3, view = server.client(retries={"total_max_attempts": 1}), f"{bucket}--etl--upper"
    data = b"abcdefgh" * (MIB // 4)
    s3.put_object(Bucket=bucket, Key="k ü", Body=data, Metadata={"note": "kept"}, ContentType="text/plain")
    head = s3.head_object(Bucket=view, Key="k ü")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": view, "Key": "k ü"}, CopySourceIfMatch=head["ETag"])
    copied = s3.get_object(Bucket=bucket, Key="copy")
    assert copied["Body"].read() == data.upper()
    assert (copied["Metadata"], copied["ContentType"]) == ({"note": "kept"}, "text/plain")
    assert copied["ETag"] == f'"{hashlib.md5(data.upper()).hexdigest()}"'
    source_etag = s3.head_object(Bucket=bucket, Key="k ü")["ETag"]
    refused = code_of(
        s3.copy_object,
        Bucket=bucket,
        Key="copy2",
        CopySource={"Bucket": view, "Key": "k ü"},
        CopySourceIfMatch=source_etag,
    )
    assert refused == (412, "PreconditionFailed")
    refusals = {"fail": (500, "EtlFailed"), "skip": (404, "NoSuchKey"), "reject": (422, "EtlInputRejected")}
    for failing, wanted in refusals.items():
        source = {"Bucket": f"{bucket}--etl--{failing}", "Key": "k ü"}
        assert code_of(s3.copy_object, Bucket=bucket, Key="not", CopySource=source) == wanted
    assert code_of(s3.head_object, Bucket=bucket, Key="not")[0] == 404


def test_upload_part_copy_from_a_view_takes_a_range_of_the_result(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    s3, view, size = server.client(), name("grown"), 6 * MIB
    admin.create_view(view, bucket, "grow", args=size)
    wire.put(at(bucket, "k"), b"x")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="made")["UploadId"]
    parts = []
    for number, asked in ((1, f"bytes=0-{5 * MIB - 1}"), (2, f"bytes={5 * MIB}-{size - 1}"), (3, None)):
        answer = s3.upload_part_copy(
            Bucket=bucket,
            Key="made",
            UploadId=upload,
            PartNumber=number,
            CopySource={"Bucket": view, "Key": "k"},
            **({"CopySourceRange": asked} if asked else {}),
        )
        parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
        if number == 2:
            parts.pop()  # too small to stand in the middle: it is only copied
    s3.complete_multipart_upload(Bucket=bucket, Key="made", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="made")["Body"].read() == grow_bytes(5 * MIB) + grow_bytes(size)
    admin.remove_view(view)


def test_attributes_tags_and_acl_of_a_view(server: RunningServer, wire: Wire, bucket: str) -> None:
    s3, view = server.client(), f"{bucket}--etl--grow"
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="colour=blue", ChecksumAlgorithm="CRC32")
    head = s3.head_object(Bucket=view, Key="k")
    names = ["ETag", "ObjectSize", "Checksum", "ObjectParts", "StorageClass"]
    told = s3.get_object_attributes(Bucket=view, Key="k", ObjectAttributes=names)
    assert (told["ETag"], told["ObjectSize"]) == (head["ETag"].strip('"'), 1024)
    assert "Checksum" not in told and "ObjectParts" not in told
    assert s3.get_object_tagging(Bucket=view, Key="k")["TagSet"] == [{"Key": "colour", "Value": "blue"}]
    assert s3.get_object_acl(Bucket=view, Key="k")["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert s3.get_bucket_acl(Bucket=view)["Owner"] == s3.get_bucket_acl(Bucket=bucket)["Owner"]
    assert s3.list_multipart_uploads(Bucket=view).get("Uploads", []) == []


def test_view_has_arguments_a_stage_and_takes_further_stages_on_request(
    server: RunningServer, wire: Wire, bucket: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    view = name("args")
    admin.create_view(view, bucket, "append>>upper>>append", args=["a", None, {"text": "b"}])
    wire.put(at(bucket, "k"), b"x")
    assert wire.get(at(view, "k")).body == b"XAb"
    assert wire.get(at(view, "k", etl="reverse")).body == b"bAX"
    assert wire.get(f"/-/via/reverse/{bucket}/k").body == b"x"
    admin.create_view(view, bucket, "append", args={"text": "c"})
    assert wire.get(at(view, "k")).body == b"xc"
    admin.remove_view(view)


def test_metadata_of_the_source_comes_along_and_reaches_the_transformer(
    server: RunningServer, wire: Wire, bucket: str
) -> None:
    s3 = server.client()
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"camera": "best"}, ContentEncoding="gzip")
    answer = s3.get_object(Bucket=f"{bucket}--etl--tell", Key="k")
    assert answer["Metadata"] == {"camera": "best"}
    assert "ContentEncoding" not in answer  # it was the source's
    assert json.loads(answer["Body"].read())["metadata"] == {"camera": "best"}
