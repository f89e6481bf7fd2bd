"""What answers say, read back by botocore's own parser."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import botocore.session
import pytest
from botocore.parsers import create_parser

from transom.s3compat import acl, documents, operations, tokens
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import DoomedObject
from transom.target.store.base import Attributes, Bucket, ObjectInfo, Part, Upload

SERVICE = botocore.session.get_session().get_service_model("s3")
NS = 1_000_000_000
WHEN = datetime.datetime(2024, 1, 2, 3, 4, 5, 678_000, tzinfo=datetime.UTC)
WHEN_NS = int(WHEN.timestamp() * 1000) * 1_000_000
ME = {"ID": "me", "DisplayName": "me"}


def read(operation: str, body: bytes) -> dict[str, Any]:
    response = {"status_code": 200, "headers": {}, "body": body}
    parsed: dict[str, Any] = create_parser("rest-xml").parse(response, SERVICE.operation_model(operation).output_shape)
    parsed.pop("ResponseMetadata")
    return parsed


def info(key: str, **changes: Any) -> ObjectInfo:
    return replace(ObjectInfo("bucket", key, 12, "abc", WHEN_NS, Attributes(owner="me")), **changes)


def test_buckets() -> None:
    parsed = read("ListBuckets", documents.list_buckets([Bucket("b1", "me", WHEN_NS)], owner="me", next_token="t"))
    assert parsed == {"Buckets": [{"Name": "b1", "CreationDate": WHEN}], "Owner": ME, "ContinuationToken": "t"}
    assert read("ListBuckets", documents.list_buckets([], owner="me"))["Buckets"] == []


def test_small_bucket_answers() -> None:
    # botocore reads this one with a special handler: the region is the root's own text.
    assert [ElementTree.fromstring(documents.bucket_location(region)).text for region in ("", "eu-west-1")] == [
        None,
        "eu-west-1",
    ]
    assert read("GetBucketVersioning", documents.bucket_versioning()) == {}


def test_acl() -> None:
    parsed = read("GetBucketAcl", documents.access_control_policy(acl.canned_policy("public-read", "me")))
    assert parsed["Owner"] == ME
    assert parsed["Grants"] == [
        {"Grantee": {**ME, "Type": "CanonicalUser"}, "Permission": "FULL_CONTROL"},
        {"Grantee": {"Type": "Group", "URI": acl.ALL_USERS}, "Permission": "READ"},
    ]


def test_tagging() -> None:
    assert read("GetObjectTagging", documents.tagging({"a": "<1>", "b": ""})) == {
        "TagSet": [{"Key": "a", "Value": "<1>"}, {"Key": "b", "Value": ""}]
    }
    assert read("GetObjectTagging", documents.tagging({})) == {"TagSet": []}


# --- listings -----------------------------------------------------------------------------------


def test_list_v1() -> None:
    op = operations.ListObjects(bucket="bucket", prefix="p", delimiter="/", marker="m", limit=2)
    parsed = read("ListObjects", documents.list_objects(op, [info("k")], ["p/q/"], "p/q/"))
    assert parsed == {
        "Name": "bucket",
        "Prefix": "p",
        "Marker": "m",
        "NextMarker": "p/q/",
        "MaxKeys": 2,
        "Delimiter": "/",
        "IsTruncated": True,
        "Contents": [
            {"Key": "k", "LastModified": WHEN, "ETag": '"abc"', "Size": 12, "StorageClass": "STANDARD", "Owner": ME}
        ],
        "CommonPrefixes": [{"Prefix": "p/q/"}],
    }


def test_list_v1_names_a_next_marker_only_where_it_is_needed() -> None:
    op = operations.ListObjects(bucket="bucket")
    assert "NextMarker" not in read("ListObjects", documents.list_objects(op, [info("k")], [], "k"))
    assert read("ListObjects", documents.list_objects(op, [], [], "z"))["NextMarker"] == "z"
    assert read("ListObjects", documents.list_objects(op, [info("k")], [], None))["IsTruncated"] is False


def test_list_v2() -> None:
    op = operations.ListObjectsV2(bucket="bucket", start_after="s", continuation_token="t", fetch_owner=True)
    entry = info("k", checksums={"CRC32": "AA=="}, checksum_type="FULL_OBJECT")
    parsed = read("ListObjectsV2", documents.list_objects_v2(op, [entry], ["q/"], "q/"))
    assert (parsed["KeyCount"], parsed["StartAfter"], parsed["ContinuationToken"]) == (2, "s", "t")
    assert tokens.decode(parsed["NextContinuationToken"]) == "q/"
    assert parsed["Contents"][0]["Owner"] == ME
    assert (parsed["Contents"][0]["ChecksumAlgorithm"], parsed["Contents"][0]["ChecksumType"]) == (
        ["CRC32"],
        "FULL_OBJECT",
    )


def test_list_v2_without_owner_and_complete() -> None:
    op = operations.ListObjectsV2(bucket="bucket", continuation_token="")
    parsed = read("ListObjectsV2", documents.list_objects_v2(op, [info("k")], [], None))
    assert "Owner" not in parsed["Contents"][0]
    assert (parsed["IsTruncated"], parsed["ContinuationToken"], "NextContinuationToken" in parsed) == (False, "", False)


def test_a_page_of_no_keys_is_complete() -> None:
    op = operations.ListObjectsV2(bucket="bucket", limit=0)
    assert read("ListObjectsV2", documents.list_objects_v2(op, [], [], "k"))["IsTruncated"] is False
    v1 = operations.ListObjects(bucket="bucket", limit=0)
    assert read("ListObjects", documents.list_objects(v1, [], [], "k"))["IsTruncated"] is False


def test_encoding_type_url_encodes_all_that_stands_for_keys() -> None:
    op = operations.ListObjects(bucket="bucket", prefix="a b", delimiter="\x01", marker="é", encoding_type="url")
    parsed = read("ListObjects", documents.list_objects(op, [info("foo+1/b ar")], ["quux ab/"], "x\x02"))
    assert (parsed["Prefix"], parsed["Delimiter"], parsed["Marker"]) == ("a%20b", "%01", "%C3%A9")
    assert parsed["NextMarker"] == "x%02"
    assert parsed["Contents"][0]["Key"] == "foo%2B1/b%20ar"
    assert parsed["CommonPrefixes"] == [{"Prefix": "quux%20ab/"}]
    assert parsed["EncodingType"] == "url"


@pytest.mark.parametrize("key", ["a\nb", "tab\tkey", " lead and trail ", "a\r", "<&>\"'", "€😀", "]]>"])
def test_odd_keys_survive_unencoded(key: str) -> None:
    op = operations.ListObjects(bucket="bucket", prefix=key, marker="\n")
    parsed = read("ListObjects", documents.list_objects(op, [info(key)], [key], None))
    assert parsed["Contents"][0]["Key"] == key
    assert parsed["CommonPrefixes"] == [{"Prefix": key}]
    assert (parsed["Prefix"], parsed["Marker"]) == (key, "\n")


def test_keys_that_xml_cannot_hold_go_out_as_references() -> None:
    op = operations.ListObjects(bucket="bucket")
    assert b"<Key>a&#1;b&#27;</Key>" in documents.list_objects(op, [info("a\x01b\x1b")], [], None)


def test_versions() -> None:
    op = operations.ListObjectVersions(bucket="bucket", key_marker="j", limit=1)
    parsed = read("ListObjectVersions", documents.list_object_versions(op, [info("k")], ["q/"], "k"))
    version = parsed["Versions"][0]
    assert (version["VersionId"], version["IsLatest"], version["Key"], version["Owner"]) == ("null", True, "k", ME)
    assert (parsed["NextKeyMarker"], parsed["NextVersionIdMarker"], parsed["IsTruncated"]) == ("k", "null", True)


def test_uploads() -> None:
    op = operations.ListMultipartUploads(bucket="bucket", limit=1)
    upload = Upload("bucket", "k", "u", WHEN_NS, Attributes(owner="me"), "CRC32", "COMPOSITE")
    parsed = read("ListMultipartUploads", documents.list_multipart_uploads(op, [upload], [], ("k", "u")))
    assert parsed["Uploads"] == [
        {
            "UploadId": "u",
            "Key": "k",
            "Initiated": WHEN,
            "StorageClass": "STANDARD",
            "Owner": ME,
            "Initiator": ME,
            "ChecksumAlgorithm": "CRC32",
            "ChecksumType": "COMPOSITE",
        }
    ]
    assert (parsed["NextKeyMarker"], parsed["NextUploadIdMarker"], parsed["MaxUploads"]) == ("k", "u", 1)


def test_parts() -> None:
    op = operations.ListParts(bucket="bucket", key="k", upload_id="u", limit=1)
    upload = Upload("bucket", "k", "u", WHEN_NS, Attributes(owner="me"))
    part = Part(3, 5, "e", WHEN_NS, {"SHA1": "x"})
    parsed = read("ListParts", documents.list_parts(op, upload, [part], truncated=True))
    assert parsed["Parts"] == [{"PartNumber": 3, "LastModified": WHEN, "ETag": '"e"', "Size": 5, "ChecksumSHA1": "x"}]
    assert (parsed["NextPartNumberMarker"], parsed["IsTruncated"], parsed["Owner"]) == (3, True, ME)
    empty = read("ListParts", documents.list_parts(op, upload, [], truncated=False))
    assert empty["NextPartNumberMarker"] == 0


# --- objects ------------------------------------------------------------------------------------


def test_writes() -> None:
    made = info("k", checksums={"CRC32": "AA==-2"}, checksum_type="COMPOSITE")
    assert read("CreateMultipartUpload", documents.create_multipart_upload("b", "k", "u"))["UploadId"] == "u"
    assert read("CompleteMultipartUpload", documents.complete_multipart_upload(made, "http://h/b/k")) == {
        "Location": "http://h/b/k",
        "Bucket": "bucket",
        "Key": "k",
        "ETag": '"abc"',
        "ChecksumCRC32": "AA==-2",
        "ChecksumType": "COMPOSITE",
    }
    copied = read("CopyObject", documents.copy_object(made))["CopyObjectResult"]
    assert (copied["ETag"], copied["LastModified"], copied["ChecksumCRC32"]) == ('"abc"', WHEN, "AA==-2")
    part = read("UploadPartCopy", documents.upload_part_copy(Part(1, 2, "e", WHEN_NS)))["CopyPartResult"]
    assert part == {"ETag": '"e"', "LastModified": WHEN}


def test_delete_objects() -> None:
    gone, stuck = DoomedObject("a"), DoomedObject("b", "v")
    parsed = read("DeleteObjects", documents.delete_objects([gone], [(stuck, S3Error("AccessDenied"))]))
    assert parsed == {
        "Deleted": [{"Key": "a"}],
        "Errors": [{"Key": "b", "VersionId": "v", "Code": "AccessDenied", "Message": "Access Denied"}],
    }
    assert read("DeleteObjects", documents.delete_objects([], [])) == {}


def test_object_attributes() -> None:
    parts = [Part(1, 5, "e1"), Part(2, 5, "e2", 0, {"CRC32": "x"}), Part(3, 1, "e3")]
    whole = info("k", parts=parts, checksums={"CRC32": "AA=="}, checksum_type="FULL_OBJECT")
    everything = frozenset(("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"))
    op = operations.GetObjectAttributes(bucket="b", key="k", wanted=everything, max_parts=1, part_number_marker=1)
    assert read("GetObjectAttributes", documents.object_attributes(op, whole)) == {
        "ETag": "abc",
        "Checksum": {"ChecksumCRC32": "AA==", "ChecksumType": "FULL_OBJECT"},
        "ObjectParts": {
            "TotalPartsCount": 3,
            "PartNumberMarker": 1,
            "NextPartNumberMarker": 2,
            "MaxParts": 1,
            "IsTruncated": True,
            "Parts": [{"PartNumber": 2, "Size": 5, "ChecksumCRC32": "x"}],
        },
        "StorageClass": "STANDARD",
        "ObjectSize": 12,
    }
    few = operations.GetObjectAttributes(bucket="b", key="k", wanted=frozenset(("ObjectSize", "Checksum")))
    assert read("GetObjectAttributes", documents.object_attributes(few, info("k"))) == {"ObjectSize": 12}
