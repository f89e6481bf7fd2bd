"""The XML of every answer that has one, and the encoding of keys that encoding-type=url asks for.

What is described comes in by shape, not by class: this library imports no store. Times are nanoseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from transom.s3compat import tokens
from transom.s3compat.acl import AccessControlPolicy, Grant
from transom.s3compat.dates import iso_date_of_ns as _date
from transom.s3compat.described import BucketLike, ObjectLike, PartLike, UploadLike
from transom.s3compat.errors import S3Error
from transom.s3compat.operations.bodies import DoomedObject
from transom.s3compat.operations.types import (
    GetObjectAttributes,
    Listing,
    ListMultipartUploads,
    ListObjects,
    ListObjectsV2,
    ListObjectVersions,
    ListParts,
)
from transom.s3compat.xml import XSI, to_xml

Entry = dict[str, Any]

# --- pieces -------------------------------------------------------------------------------------


def url_encoded(text: str) -> str:
    """Return a key as encoding-type=url has it; '/' stays."""
    return quote(text, safe="/")


def _encoder(op: Listing | ListParts) -> Callable[[str], str]:
    return url_encoded if op.encoding_type == "url" else str


def _owner(name: str) -> Entry:
    return {"ID": name, "DisplayName": name}


def _checksums(checksums: Mapping[str, str], kind: str = "") -> Entry:
    found: Entry = {"Checksum" + name: value for name, value in checksums.items()}
    if found and kind:
        found["ChecksumType"] = kind
    return found


def _prefixes(prefixes: Iterable[str], encode: Callable[[str], str]) -> tuple[str, list[Entry]]:
    return "CommonPrefixes", [{"Prefix": encode(prefix)} for prefix in prefixes]


# --- buckets ------------------------------------------------------------------------------------


def list_buckets(
    buckets: Iterable[BucketLike], *, owner: str, prefix: str = "", next_token: str | None = None
) -> bytes:
    """Answer ListBuckets; `next_token` continues a listing that max-buckets cut."""
    listed = [{"Name": bucket.name, "CreationDate": _date(bucket.created_ns)} for bucket in buckets]
    content = {
        "Owner": _owner(owner),
        "Buckets": {"Bucket": listed},
        "ContinuationToken": next_token,
        "Prefix": prefix or None,
    }
    return to_xml("ListAllMyBucketsResult", content)


def bucket_location(region: str) -> bytes:
    """Answer GetBucketLocation; us-east-1 is the empty string, as in S3."""
    return to_xml("LocationConstraint", {"#text": region})


def bucket_versioning(status: str = "") -> bytes:
    """Answer GetBucketVersioning; a bucket that never had versioning has no status."""
    return to_xml("VersioningConfiguration", {"Status": status or None})


def access_control_policy(policy: AccessControlPolicy) -> bytes:
    """Answer GetBucketAcl and GetObjectAcl."""
    content = {
        "Owner": _owner(policy.owner),
        "AccessControlList": {"Grant": [_grant(grant) for grant in policy.grants]},
    }
    return to_xml("AccessControlPolicy", content)


def _grant(grant: Grant) -> Entry:
    grantee: Entry = {"@xmlns:xsi": XSI, "@xsi:type": grant.kind}
    if grant.kind == "Group":
        grantee["URI"] = grant.grantee
    elif grant.kind == "AmazonCustomerByEmail":
        grantee["EmailAddress"] = grant.grantee
    else:
        grantee |= {"ID": grant.grantee, "DisplayName": grant.display_name or grant.grantee}
    return {"Grantee": grantee, "Permission": grant.permission}


# --- listings -----------------------------------------------------------------------------------


def _object(info: ObjectLike, encode: Callable[[str], str], *, owner: bool) -> Entry:
    entry: Entry = {"Key": encode(info.key), "LastModified": _date(info.modified_ns), "ETag": f'"{info.etag}"'}
    if info.checksums:
        entry["ChecksumAlgorithm"] = list(info.checksums)
        entry["ChecksumType"] = info.checksum_type or None
    entry["Size"] = info.size
    if owner:
        entry["Owner"] = _owner(info.attributes.owner)
    entry["StorageClass"] = info.attributes.storage_class
    return entry


def list_objects(
    op: ListObjects, objects: Sequence[ObjectLike], prefixes: Sequence[str], next_after: str | None
) -> bytes:
    """Answer ListObjects. NextMarker is there with a delimiter, or where the last key isn't the place to go on from."""
    encode = _encoder(op)
    last = objects[-1].key if objects else None
    marker = next_after if op.limit and (op.delimiter or next_after != last) else None
    content = {
        "Name": op.bucket,
        "Prefix": encode(op.prefix),
        "Marker": encode(op.marker),
        "NextMarker": None if marker is None else encode(marker),
        "MaxKeys": op.limit,
        "Delimiter": encode(op.delimiter) if op.delimiter else None,
        "IsTruncated": op.limit > 0 and next_after is not None,
        "EncodingType": op.encoding_type or None,
    }
    contents = ("Contents", [_object(info, encode, owner=True) for info in objects])
    return to_xml("ListBucketResult", content, rows=(contents, _prefixes(prefixes, encode)))


def list_objects_v2(
    op: ListObjectsV2, objects: Sequence[ObjectLike], prefixes: Sequence[str], next_after: str | None
) -> bytes:
    """Answer ListObjectsV2; `next_after` goes out as the token, None when the listing is complete."""
    encode = _encoder(op)
    truncated = op.limit > 0 and next_after is not None
    content = {
        "Name": op.bucket,
        "Prefix": encode(op.prefix),
        "StartAfter": encode(op.start_after) if op.start_after else None,
        "ContinuationToken": op.continuation_token,
        "NextContinuationToken": tokens.encode(next_after) if truncated and next_after is not None else None,
        "KeyCount": len(objects) + len(prefixes),
        "MaxKeys": op.limit,
        "Delimiter": encode(op.delimiter) if op.delimiter else None,
        "IsTruncated": truncated,
        "EncodingType": op.encoding_type or None,
    }
    contents = ("Contents", [_object(info, encode, owner=op.fetch_owner) for info in objects])
    return to_xml("ListBucketResult", content, rows=(contents, _prefixes(prefixes, encode)))


def list_object_versions(
    op: ListObjectVersions, objects: Sequence[ObjectLike], prefixes: Sequence[str], next_after: str | None
) -> bytes:
    """Answer ListObjectVersions for a bucket without versioning: each object is its one version, "null"."""
    encode = _encoder(op)
    truncated = op.limit > 0 and next_after is not None
    content = {
        "Name": op.bucket,
        "Prefix": encode(op.prefix),
        "KeyMarker": encode(op.key_marker),
        "VersionIdMarker": op.version_id_marker,
        "NextKeyMarker": encode(next_after) if truncated and next_after is not None else None,
        "NextVersionIdMarker": "null" if truncated else None,
        "MaxKeys": op.limit,
        "Delimiter": encode(op.delimiter) if op.delimiter else None,
        "IsTruncated": truncated,
        "EncodingType": op.encoding_type or None,
    }
    versions = [{"VersionId": "null", "IsLatest": True, **_object(info, encode, owner=True)} for info in objects]
    return to_xml("ListVersionsResult", content, rows=(("Version", versions), _prefixes(prefixes, encode)))


def list_multipart_uploads(
    op: ListMultipartUploads,
    uploads: Sequence[UploadLike],
    prefixes: Sequence[str],
    next_after: tuple[str, str] | None,
) -> bytes:
    """Answer ListMultipartUploads; `next_after` is (key, upload id)."""
    encode = _encoder(op)
    truncated = op.limit > 0 and next_after is not None
    content = {
        "Bucket": op.bucket,
        "KeyMarker": encode(op.key_marker),
        "UploadIdMarker": op.upload_id_marker,
        "NextKeyMarker": encode(next_after[0]) if truncated and next_after else None,
        "NextUploadIdMarker": next_after[1] if truncated and next_after else None,
        "Prefix": encode(op.prefix),
        "Delimiter": encode(op.delimiter) if op.delimiter else None,
        "EncodingType": op.encoding_type or None,
        "MaxUploads": op.limit,
        "IsTruncated": truncated,
    }
    listed = ("Upload", [_upload(upload, encode) for upload in uploads])
    return to_xml("ListMultipartUploadsResult", content, rows=(listed, _prefixes(prefixes, encode)))


def _upload(upload: UploadLike, encode: Callable[[str], str]) -> Entry:
    return {
        "UploadId": upload.upload_id,
        "Key": encode(upload.key),
        "Initiated": _date(upload.started_ns),
        "StorageClass": upload.attributes.storage_class,
        "Owner": _owner(upload.attributes.owner),
        "Initiator": _owner(upload.attributes.owner),
        "ChecksumAlgorithm": upload.checksum_algorithm or None,
        "ChecksumType": upload.checksum_type or None,
    }


def list_parts(op: ListParts, upload: UploadLike, parts: Sequence[PartLike], *, truncated: bool) -> bytes:
    """Answer ListParts."""
    content = {
        "Bucket": op.bucket,
        "Key": _encoder(op)(op.key),
        "UploadId": op.upload_id,
        "PartNumberMarker": op.part_number_marker,
        "NextPartNumberMarker": parts[-1].number if parts else op.part_number_marker,
        "MaxParts": op.limit,
        "IsTruncated": truncated,
        "EncodingType": op.encoding_type or None,
        "Initiator": _owner(upload.attributes.owner),
        "Owner": _owner(upload.attributes.owner),
        "StorageClass": upload.attributes.storage_class,
        "ChecksumAlgorithm": upload.checksum_algorithm or None,
        "ChecksumType": upload.checksum_type or None,
    }
    return to_xml("ListPartsResult", content, rows=(("Part", [_part(part) for part in parts]),))


def _part(part: PartLike) -> Entry:
    return {
        "PartNumber": part.number,
        "LastModified": _date(part.modified_ns),
        "ETag": f'"{part.etag}"',
        "Size": part.size,
        **_checksums(part.checksums),
    }


# --- objects ------------------------------------------------------------------------------------


def create_multipart_upload(bucket: str, key: str, upload_id: str) -> bytes:
    """Answer CreateMultipartUpload."""
    return to_xml("InitiateMultipartUploadResult", {"Bucket": bucket, "Key": key, "UploadId": upload_id})


def complete_multipart_upload(info: ObjectLike, location: str) -> bytes:
    """Answer CompleteMultipartUpload; `location` is the object's URL."""
    content = {"Location": location, "Bucket": info.bucket, "Key": info.key, "ETag": f'"{info.etag}"'}
    return to_xml("CompleteMultipartUploadResult", {**content, **_checksums(info.checksums, info.checksum_type)})


def copy_object(info: ObjectLike) -> bytes:
    """Answer CopyObject with what the copy became."""
    content = {"LastModified": _date(info.modified_ns), "ETag": f'"{info.etag}"'}
    return to_xml("CopyObjectResult", {**content, **_checksums(info.checksums, info.checksum_type)})


def upload_part_copy(part: PartLike) -> bytes:
    """Answer UploadPartCopy."""
    content = {"LastModified": _date(part.modified_ns), "ETag": f'"{part.etag}"'}
    return to_xml("CopyPartResult", {**content, **_checksums(part.checksums)})


def delete_objects(deleted: Iterable[DoomedObject], failed: Iterable[tuple[DoomedObject, S3Error]]) -> bytes:
    """Answer DeleteObjects; in quiet mode `deleted` is empty."""
    gone = [{"Key": each.key, "VersionId": each.version_id} for each in deleted]
    errors = [
        {"Key": each.key, "VersionId": each.version_id, "Code": error.code, "Message": error.message}
        for each, error in failed
    ]
    return to_xml("DeleteResult", {}, rows=(("Deleted", gone), ("Error", errors)))


def tagging(tags: Mapping[str, str]) -> bytes:
    """Answer GetObjectTagging."""
    return to_xml("Tagging", {"TagSet": {"Tag": [{"Key": key, "Value": value} for key, value in tags.items()]}})


def object_attributes(op: GetObjectAttributes, info: ObjectLike) -> bytes:
    """Answer GetObjectAttributes with what was asked for; the ETag has no quotes here."""
    found: Entry = {}
    if "ETag" in op.wanted:
        found["ETag"] = info.etag
    if "Checksum" in op.wanted and info.checksums:
        found["Checksum"] = _checksums(info.checksums, info.checksum_type)
    if "ObjectParts" in op.wanted and info.parts:
        found["ObjectParts"] = _object_parts(op, info.parts)
    if "StorageClass" in op.wanted:
        found["StorageClass"] = info.attributes.storage_class
    if "ObjectSize" in op.wanted:
        found["ObjectSize"] = info.size
    return to_xml("GetObjectAttributesResponse", found)


def _object_parts(op: GetObjectAttributes, parts: Sequence[PartLike]) -> Entry:
    later = [part for part in parts if part.number > op.part_number_marker]
    page = later[: op.max_parts]
    return {
        "PartsCount": len(parts),
        "PartNumberMarker": op.part_number_marker,
        "NextPartNumberMarker": page[-1].number if page else op.part_number_marker,
        "MaxParts": op.max_parts,
        "IsTruncated": len(later) > len(page),
        "Part": [{"PartNumber": part.number, "Size": part.size, **_checksums(part.checksums)} for part in page],
    }
