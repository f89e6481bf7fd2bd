from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path

import botocore
import pytest

from transom.s3compat import operations, tokens
from transom.s3compat.addressing import split
from transom.s3compat.conditions import Conditions
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import CopySource, TransformAsk
from transom.s3compat.operations.table import BY_OTHER_MEANS
from transom.s3compat.ranges import ByteRange
from transom.s3compat.request import HttpRequest

MULTIPART_FORM = "multipart/form-data; boundary=x"


def parse(method: str, target: str, **headers: str) -> operations.Operation:
    path, _, query = target.partition("?")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return operations.parse(HttpRequest(method, path, query, named), split(path, "", ()))


def refused(method: str, target: str, **headers: str) -> S3Error:
    with pytest.raises(S3Error) as caught:
        parse(method, target, **headers)
    return caught.value


def service_model() -> Iterator[tuple[str, str, str]]:
    """Yield (operation, method, target) of every operation in botocore's S3 model."""
    path = Path(botocore.__file__).parent / "data/s3/2006-03-01/service-2.json.gz"
    model = json.loads(gzip.decompress(path.read_bytes()))
    for name, operation in model["operations"].items():
        target = operation["http"]["requestUri"].replace("{Bucket}", "bucket").replace("{Key+}", "key")
        shape = model["shapes"].get(operation.get("input", {}).get("shape", ""), {})
        members = shape.get("members", {})
        needed = [members[each] for each in shape.get("required", ()) if each in members]
        parameters = [each["locationName"] + "=1" for each in needed if each.get("location") == "querystring"]
        if parameters:
            target += ("&" if "?" in target else "?") + "&".join(parameters)
        yield name, operation["http"]["method"], target


# --- the table ----------------------------------------------------------------------------------

ALIASES = {
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
}


@pytest.mark.parametrize(
    ("name", "method", "target"), [each for each in service_model() if each[0] not in BY_OTHER_MEANS]
)
def test_every_operation_of_amazons_model_is_known_by_name(name: str, method: str, target: str) -> None:
    path, _, query = target.partition("?")
    request = HttpRequest(method, path, query, {"content-length": "0", "x-amz-object-attributes": "ETag"})
    found = operations.operation_name(request, split(path, "", ()))
    assert found == ALIASES.get(name, name)


def test_what_is_not_implemented_says_so_by_name() -> None:
    error = refused("GET", "/bucket?cors")
    assert (error.code, error.status, error.message) == ("NotImplemented", 501, "GetBucketCors is not implemented")
    assert "PostObject" in refused("POST", "/bucket", content_type=MULTIPART_FORM).message
    assert "GetBucketAnalyticsConfiguration" in refused("GET", "/bucket?analytics&id=1").message
    assert "WriteGetObjectResponse" in refused("POST", "/WriteGetObjectResponse").message


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/"),
        ("PUT", "/"),
        ("POST", "/bucket"),
        ("POST", "/bucket/key"),
        ("PATCH", "/bucket/key"),
        ("DELETE", "/bucket?versions"),
        ("DELETE", "/bucket/key?acl"),
        ("DELETE", "/bucket/key?attributes"),
        ("PUT", "/bucket/key?torrent"),
        ("HEAD", "/bucket?acl"),
    ],
)
def test_a_method_that_a_resource_has_not_is_refused_and_never_taken_for_another(method: str, target: str) -> None:
    error = refused(method, target)
    assert (error.code, error.status) == ("MethodNotAllowed", 405)
    assert "Allow" in error.headers


def test_preflight() -> None:
    assert refused("OPTIONS", "/bucket/key").status == 400
    assert refused("OPTIONS", "/bucket/key", origin="http://x").status == 403


def test_operations_are_frozen_and_named() -> None:
    op = parse("GET", "/bucket/key")
    assert op == operations.GetObject(bucket="bucket", key="key")
    assert op.name == "GetObject"
    with pytest.raises(FrozenInstanceError):
        op.bucket = "other"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/", operations.ListBuckets()),
        (
            "GET",
            "/?max-buckets=5&prefix=a&continuation-token=x",
            operations.ListBuckets(prefix="a", max_buckets=5, continuation_token="x"),
        ),
        ("HEAD", "/bucket", operations.HeadBucket(bucket="bucket")),
        ("DELETE", "/bucket/", operations.DeleteBucket(bucket="bucket")),
        ("GET", "/bucket?location", operations.GetBucketLocation(bucket="bucket")),
        ("GET", "/bucket?versioning", operations.GetBucketVersioning(bucket="bucket")),
        (
            "DELETE",
            "/bucket/key?versionId=null",
            operations.DeleteObject(bucket="bucket", key="key", version_id="null"),
        ),
        ("GET", "/bucket/key?tagging", operations.GetObjectTagging(bucket="bucket", key="key")),
        ("DELETE", "/bucket/key?tagging", operations.DeleteObjectTagging(bucket="bucket", key="key")),
        (
            "DELETE",
            "/bucket/key?uploadId=u",
            operations.AbortMultipartUpload(bucket="bucket", key="key", upload_id="u"),
        ),
        (
            "GET",
            "/bucket/key?uploadId=u&max-parts=3&part-number-marker=7",
            operations.ListParts(bucket="bucket", key="key", upload_id="u", limit=3, part_number_marker=7),
        ),
    ],
)
def test_plain_operations(method: str, target: str, expected: operations.Operation) -> None:
    assert parse(method, target) == expected


# --- listings -----------------------------------------------------------------------------------


def test_list_v1() -> None:
    op = parse("GET", "/bucket?prefix=a%2F&delimiter=%0A&marker=m+n&max-keys=7&encoding-type=url")
    assert op == operations.ListObjects(
        bucket="bucket", prefix="a/", delimiter="\n", marker="m n", limit=7, encoding_type="url"
    )
    assert isinstance(op, operations.ListObjects)
    assert op.after == "m n"


def test_list_v2_goes_on_from_its_token_rather_than_from_start_after() -> None:
    token = tokens.encode("köy")
    op = parse("GET", f"/bucket?list-type=2&start-after=a&continuation-token={token}&fetch-owner=true")
    assert isinstance(op, operations.ListObjectsV2)
    assert (op.after, op.start_after, op.continuation_token, op.fetch_owner) == ("köy", "a", token, True)


def test_an_empty_token_starts_at_the_beginning() -> None:
    op = parse("GET", "/bucket?list-type=2&continuation-token=")
    assert isinstance(op, operations.ListObjectsV2)
    assert (op.continuation_token, op.after) == ("", "")


@pytest.mark.parametrize("token", ["nonsense", "%C3%A9", "MA==", "Mf8="])
def test_a_token_never_given_out_is_refused(token: str) -> None:
    error = refused("GET", f"/bucket?list-type=2&continuation-token={token}")
    assert (error.code, error.fields["ArgumentName"]) == ("InvalidArgument", "continuation-token")


@pytest.mark.parametrize(("text", "limit"), [("", 1000), ("0", 0), ("1", 1), ("1000", 1000), ("5000", 1000)])
@pytest.mark.parametrize("kind", ["", "list-type=2&", "versions&"])
def test_max_keys(kind: str, text: str, limit: int) -> None:
    op = parse("GET", f"/bucket?{kind}max-keys={text}")
    assert isinstance(op, operations.Listing)
    assert op.limit == limit


@pytest.mark.parametrize("text", ["blah", "-1", "1.5", "%D9%A3", "99999999999999999999999"])
def test_max_keys_that_is_no_number_is_refused_by_name(text: str) -> None:
    error = refused("GET", f"/bucket?max-keys={text}")
    assert (error.code, error.status, error.fields["ArgumentName"]) == ("InvalidArgument", 400, "max-keys")


def test_other_listing_parameters() -> None:
    assert refused("GET", "/bucket?encoding-type=base64").code == "InvalidArgument"
    assert refused("GET", "/bucket?versions&version-id-marker=v").code == "InvalidArgument"
    op = parse("GET", "/bucket?uploads&upload-id-marker=u&max-uploads=2")
    assert op == operations.ListMultipartUploads(bucket="bucket", limit=2)  # no key marker: the other is ignored
    assert parse("GET", "/bucket?list-type=1") == operations.ListObjects(bucket="bucket")


# --- reads and transforms -----------------------------------------------------------------------


def test_a_read_carries_its_overrides_version_part_and_checksum_mode() -> None:
    target = "/bucket/key?versionId=v&partNumber=3&response-content-type=text%2Fplain&response-expires=x"
    assert parse("HEAD", target, x_amz_checksum_mode="enabled") == operations.HeadObject(
        bucket="bucket",
        key="key",
        version_id="v",
        part_number=3,
        response_overrides={"content-type": "text/plain", "expires": "x"},
        checksum_mode=True,
    )


@pytest.mark.parametrize(
    "query",
    ["versionId=", "partNumber=0", "partNumber=10001", "partNumber=x", "partNumber=", "response-expires=a%0D%0Ab%3A1"],
)
def test_reads_refuse_what_makes_no_sense(query: str) -> None:
    assert refused("GET", f"/bucket/key?{query}").code == "InvalidArgument"


def test_a_part_and_a_range_at_once_are_refused() -> None:
    assert refused("GET", "/bucket/key?partNumber=1", range="bytes=0-1").code == "InvalidRequest"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("etl=md5", TransformAsk(("md5",))),
        ("etl=resize%3E%3Ewebp", TransformAsk(("resize", "webp"))),
        ("etl=resize>>webp", TransformAsk(("resize", "webp"))),
        ("etl=a&etl_args=%7B%22w%22%3A1%7D", TransformAsk(("a",), '{"w":1}')),
        (
            "etl=thumb&thumb.width=224&thumb.fit=a+b",
            TransformAsk(("thumb",), None, (("thumb", "width", "224"), ("thumb", "fit", "a b"))),
        ),
        ("etl_name=a", TransformAsk(("a",))),
        ("etl_name=a&etl_pipeline=b,c&etl_args=1", TransformAsk(("a", "b", "c"), "1")),
        ("etl_pipeline=b%2Cc", TransformAsk(("b", "c"))),
        ("etl=a&etl_args=", TransformAsk(("a",))),
        ("x-id=GetObject", None),
    ],
)
def test_transforms(query: str, expected: TransformAsk | None) -> None:
    op = parse("GET", f"/bucket/key?{query}")
    assert isinstance(op, operations.GetObject)
    assert op.transform == expected


@pytest.mark.parametrize(
    "query",
    [
        "etl=",
        "etl=a%3E%3E",
        "etl=%3E%3Ea",
        "etl=a&etl_name=b",
        "etl=a&etl_pipeline=b",
        "etl_pipeline=a,,b",
        "etl_args=1",
        "thumb.width=1",
        "etl=a&b.width=1",
        "etl=a&a.w=1&etl_args=1",
        "etl=a&etl=b",
    ],
)
def test_an_ambiguous_transform_is_refused(query: str) -> None:
    assert refused("GET", f"/bucket/key?{query}").code == "InvalidArgument"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_transform_on_anything_but_a_read_is_refused(method: str) -> None:
    assert refused(method, "/bucket/key?etl=md5", content_length="0").code == "InvalidArgument"
    assert refused("GET", "/bucket?etl=md5").code == "InvalidArgument"


# --- writes -------------------------------------------------------------------------------------


def test_put_object_reads_everything_a_writer_says() -> None:
    op = parse(
        "PUT",
        "/bucket/key",
        content_type="text/plain",
        content_encoding="aws-chunked, gzip",
        cache_control="no-cache",
        x_amz_meta_color="blue",
        x_amz_tagging="a=1&b",
        x_amz_acl="public-read",
        x_amz_storage_class="STANDARD_IA",
        if_none_match="*",
        x_amz_sdk_checksum_algorithm="CRC32",
        x_amz_expected_bucket_owner="me",
    )
    assert isinstance(op, operations.PutObject)
    attributes = op.attributes
    assert attributes.content == {"content-type": "text/plain", "content-encoding": "gzip", "cache-control": "no-cache"}
    assert (attributes.metadata, attributes.tags) == ({"color": "blue"}, {"a": "1", "b": ""})
    assert (attributes.acl.canned, attributes.storage_class) == ("public-read", "STANDARD_IA")
    assert (op.write_if.if_none_match, op.write_if.if_match) == ("*", None)
    assert (op.checksum_algorithm, op.expected_owner) == ("CRC32", "me")


@pytest.mark.parametrize("encoding", ["aws-chunked", "aws-chunked, aws-chunked", "", "aws-chunked,"])
def test_framing_is_not_kept_as_an_encoding(encoding: str) -> None:
    op = parse("PUT", "/bucket/key", content_length="0", content_encoding=encoding)
    assert isinstance(op, operations.PutObject)
    assert op.attributes.content == {}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x_amz_acl": "public-ready"}, "InvalidArgument"),
        ({"x_amz_acl": ""}, "InvalidArgument"),
        ({"x_amz_acl": "private", "x_amz_grant_read": 'id="x"'}, "InvalidRequest"),
        ({"x_amz_storage_class": "COLD"}, "InvalidStorageClass"),
        ({"x_amz_tagging": "&".join(f"k{n}=v" for n in range(11))}, "InvalidTag"),
        ({"x_amz_tagging": "a=1&a=2"}, "InvalidTag"),
        ({"x_amz_tagging": "k" * 129 + "=1"}, "InvalidTag"),
        ({"x_amz_tagging": "k=" + "v" * 257}, "InvalidTag"),
        ({"x_amz_tagging": "%FF=1"}, "InvalidArgument"),
        ({"x_amz_meta_a": "x" * 2048}, "MetadataTooLarge"),
        ({f"x_amz_meta_{n:02}": "x" * 19 for n in range(98)}, "MetadataTooLarge"),
        ({"x_amz_meta_transom_source": "x" * 8192}, "MetadataTooLarge"),
        ({"x_amz_checksum_algorithm": "ROT13"}, "InvalidRequest"),
        ({"x_amz_server_side_encryption": "AES256"}, "NotImplemented"),
        ({"x_amz_object_lock_mode": "GOVERNANCE"}, "NotImplemented"),
        ({"x_amz_write_offset_bytes": "3"}, "NotImplemented"),
    ],
)
def test_put_object_refuses(headers: dict[str, str], code: str) -> None:
    assert refused("PUT", "/bucket/key", content_length="0", **headers).code == code


def test_what_a_job_says_of_an_object_is_bounded_apart_from_its_metadata() -> None:
    told = {"x_amz_meta_a": "x" * 2047, "x_amz_meta_transom_source": "y" * 4000, "x_amz_meta_transom_args": "z" * 4000}
    op = parse("PUT", "/bucket/key", content_length="0", **told)
    assert isinstance(op, operations.PutObject)
    assert {name: len(value) for name, value in op.attributes.metadata.items()} == {
        "a": 2047,
        "transom-source": 4000,
        "transom-args": 4000,
    }


def test_grant_headers_are_handed_on() -> None:
    op = parse("PUT", "/bucket/key?acl", x_amz_grant_read='uri="http://x"')
    assert isinstance(op, operations.PutObjectAcl)
    assert op.acl
    assert op.acl.grants == {"x-amz-grant-read": 'uri="http://x"'}


def test_fields_hoisted_into_a_presigned_url_count_as_headers() -> None:
    op = parse("PUT", "/bucket/key?x-amz-acl=public-read&X-Amz-Meta-A=1&X-Amz-Signature=x", content_length="0")
    assert isinstance(op, operations.PutObject)
    assert (op.attributes.acl.canned, op.attributes.metadata) == ("public-read", {"a": "1"})
    with_header = parse("PUT", "/bucket/key?x-amz-meta-a=1&x-amz-meta-b=2", x_amz_meta_b="3")
    assert isinstance(with_header, operations.PutObject)
    assert with_header.attributes.metadata == {"a": "1", "b": "3"}


@pytest.mark.parametrize(
    "parameter",
    [
        "x-amz-meta-a=1%0D%0A2",
        "x-amz-meta-a=%E2%82%AC",
        "x-amz-meta-a%0D%0Aset-cookie%3A=1",
        "x-amz-meta-a%20b=1",
        "x-amz-meta-a%3A=1",
        "x-amz-meta-%C3%A9=1",
        "X-Amz-Acl%00=private",
    ],
)
def test_a_parameter_that_could_not_have_been_a_header_is_no_field(parameter: str) -> None:
    for method in ("GET", "PUT"):
        assert refused(method, f"/bucket/key?{parameter}").code == "InvalidArgument"


def test_fields_in_a_url_are_bounded_like_headers() -> None:
    assert refused("PUT", "/bucket/key?x-amz-meta-a=" + "x" * 2048).code == "MetadataTooLarge"
    many = "&".join(f"x-amz-meta-{n}=" for n in range(1000))
    assert refused("PUT", f"/bucket/key?{many}").code == "RequestHeaderSectionTooLarge"
    whole = parse("PUT", "/bucket/key?x-amz-meta-a=" + "%C3%A9" * 2047)
    assert isinstance(whole, operations.PutObject)
    assert whole.attributes.metadata == {"a": "é" * 2047}


def test_the_first_of_several_parameters_of_a_name_counts() -> None:
    """A signature of version 2 is over the first: whoever holds a URL must not overrule it by adding another."""
    op = parse("PUT", "/bucket/key?x-amz-acl=private&X-Amz-Acl=public-read&x-amz-acl=public-read")
    assert isinstance(op, operations.PutObject)
    assert op.attributes.acl.canned == "private"


def test_copy_object() -> None:
    op = parse(
        "PUT",
        "/bucket/key",
        x_amz_copy_source="/src/a%20b%2B/c?versionId=v1",
        x_amz_metadata_directive="REPLACE",
        x_amz_copy_source_if_match='"abc"',
        x_amz_meta_a="1",
    )
    assert isinstance(op, operations.CopyObject)
    assert op.source == CopySource("src", "a b+/c", "v1")
    assert op.source_if == Conditions(if_match=("abc",))
    assert (op.metadata_directive, op.tagging_directive, op.storage_class) == ("REPLACE", "COPY", None)
    assert op.attributes.metadata == {"a": "1"}


def test_a_bare_plus_in_a_copy_source_is_a_space() -> None:
    op = parse("PUT", "/bucket/key", x_amz_copy_source="src/a+b%2Bc%20d")
    assert isinstance(op, operations.CopyObject)
    assert op.source == CopySource("src", "a b+c d")


@pytest.mark.parametrize("source", ["", "/", "bucket", "bucket/", "/b/k?versionId=", "b/k?x=1", "b/%FF", "-/k"])
def test_a_malformed_copy_source_is_refused(source: str) -> None:
    error = refused("PUT", "/bucket/key", x_amz_copy_source=source)
    assert (error.code, error.fields["ArgumentName"]) == ("InvalidArgument", "x-amz-copy-source")


def test_an_unknown_directive_is_refused() -> None:
    assert (
        refused("PUT", "/b-b/k", x_amz_copy_source="b-b/k", x_amz_metadata_directive="MERGE").code == "InvalidArgument"
    )


# --- multipart ----------------------------------------------------------------------------------


def test_parts() -> None:
    op = parse("PUT", "/bucket/key?partNumber=10000&uploadId=u", x_amz_checksum_sha1="x")
    assert op == operations.UploadPart(
        bucket="bucket", key="key", upload_id="u", part_number=10000, checksum_algorithm="SHA1"
    )
    copy = parse(
        "PUT", "/bucket/key?partNumber=1&uploadId=u", x_amz_copy_source="s-s/k", x_amz_copy_source_range="bytes=0-9"
    )
    assert isinstance(copy, operations.UploadPartCopy)
    assert (copy.source, copy.source_range) == (CopySource("s-s", "k"), ByteRange(0, 9))


def test_parts_refuse_what_makes_no_sense() -> None:
    assert refused("PUT", "/bucket/key?partNumber=1", content_length="0").code == "InvalidArgument"
    assert refused("PUT", "/bucket/key?uploadId=u", content_length="0").code == "InvalidArgument"
    assert refused("PUT", "/bucket/key?partNumber=0&uploadId=u", content_length="0").code == "InvalidArgument"
    assert refused("PUT", "/bucket/key?partNumber=1&uploadId=", content_length="0").code == "NoSuchUpload"


@pytest.mark.parametrize(
    ("algorithm", "asked", "kind"),
    [
        ("", "", ""),
        ("CRC32", "", "COMPOSITE"),
        ("crc64nvme", "", "FULL_OBJECT"),
        ("CRC32C", "full_object", "FULL_OBJECT"),
    ],
)
def test_an_uploads_checksum_type(algorithm: str, asked: str, kind: str) -> None:
    headers = {"x_amz_checksum_algorithm": algorithm} if algorithm else {}
    headers |= {"x_amz_checksum_type": asked} if asked else {}
    op = parse("POST", "/bucket/key?uploads", **headers)
    assert isinstance(op, operations.CreateMultipartUpload)
    assert (op.checksum_algorithm, op.checksum_type) == (algorithm.upper(), kind)


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("SHA256", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE"), ("", "COMPOSITE"), ("CRC32", "BOTH")]
)
def test_impossible_checksum_types_are_refused(algorithm: str, kind: str) -> None:
    headers = {"x_amz_checksum_algorithm": algorithm} if algorithm else {}
    assert refused("POST", "/bucket/key?uploads", x_amz_checksum_type=kind, **headers).code == "InvalidRequest"


def test_completion() -> None:
    op = parse("POST", "/bucket/key?uploadId=u", x_amz_checksum_crc32="AA==", x_amz_mp_object_size="7", if_match='"e"')
    assert isinstance(op, operations.CompleteMultipartUpload)
    assert (op.checksums, op.object_size, op.write_if.if_match) == ({"CRC32": "AA=="}, 7, "e")
    assert refused("POST", "/bucket/key?uploadId=u", x_amz_mp_object_size="x").code == "InvalidArgument"


def test_object_attributes() -> None:
    op = parse("GET", "/bucket/key?attributes", x_amz_object_attributes="ETag, ObjectSize", x_amz_max_parts="5")
    assert isinstance(op, operations.GetObjectAttributes)
    assert (op.wanted, op.max_parts) == ({"ETag", "ObjectSize"}, 5)
    for value in ("", "ETag,Nonsense"):
        assert refused("GET", "/bucket/key?attributes", x_amz_object_attributes=value).code == "InvalidArgument"


@pytest.mark.parametrize(
    "headers",
    [
        {"content_md5": "x"},
        {"x_amz_checksum_crc32": "x"},
        {"x_amz_trailer": "x-amz-checksum-crc64nvme"},
    ],
)
def test_deleting_several_objects_needs_a_digest_of_which_ones(headers: dict[str, str]) -> None:
    assert parse("POST", "/bucket?delete", **headers) == operations.DeleteObjects(bucket="bucket")
    error = refused("POST", "/bucket?delete", x_amz_checksum_mode="ENABLED", x_amz_sdk_checksum_algorithm="CRC32")
    assert (error.code, "Content-MD5" in error.message) == ("InvalidRequest", True)


def test_a_long_pipeline_with_many_options_is_read_in_linear_time() -> None:
    stages, options = 20_000, 20_000
    query = "etl=" + ">>".join(["x"] * stages + ["last"]) + "&last.o=1" * options
    started = time.process_time()
    op = parse("GET", f"/bucket/key?{query}")
    assert isinstance(op, operations.GetObject)
    assert op.transform is not None
    assert len(op.transform.options) == options
    assert time.process_time() - started < 2.0


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["abc", "a-b.c1", "0ab", "a" * 63])
def test_good_bucket_names(name: str) -> None:
    assert parse("PUT", f"/{name}").name == "CreateBucket"


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "aa",
        "a" * 64,
        "Abc",
        "a_b_c",
        "_abc",
        "foo-",
        "-foo",
        "foo..bar",
        "foo.-bar",
        "foo-.bar",
        "192.168.5.123",
        "xn--abc",
        "abc-s3alias",
        "photos--etl--thumb",
        "foo%2Fbar",
        "...",
    ],
)
def test_bad_bucket_names(name: str) -> None:
    error = refused("PUT", f"/{name}")
    assert (error.code, error.status) == ("InvalidBucketName", 400)


def test_views_are_reached_by_names_that_no_bucket_may_have() -> None:
    assert parse("GET", "/photos--etl--my_etl/key") == operations.GetObject(bucket="photos--etl--my_etl", key="key")


@pytest.mark.parametrize("bucket", ["-", "..", "%2E%2E", "a%2Fb", "a%00b", "a" * 256])
def test_no_path_trick_passes_for_a_bucket(bucket: str) -> None:
    assert refused("GET", f"/{bucket}/key").code == "InvalidBucketName"


def test_key_length_counts_in_bytes() -> None:
    assert parse("GET", "/bucket/" + "k" * 1024).name == "GetObject"
    assert refused("GET", "/bucket/" + "k" * 1025).code == "KeyTooLongError"
    assert refused("GET", "/bucket/" + "%E2%82%AC" * 342).code == "KeyTooLongError"


def test_create_bucket() -> None:
    op = parse("PUT", "/bucket", x_amz_acl="private", x_amz_bucket_object_lock_enabled="false")
    assert isinstance(op, operations.CreateBucket)
    assert op.acl.canned == "private"
    assert refused("PUT", "/bucket", x_amz_object_ownership="Mine").code == "InvalidArgument"
    assert refused("PUT", "/bucket", x_amz_bucket_object_lock_enabled="true").code == "NotImplemented"
