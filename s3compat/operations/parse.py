"""From a request and its address to the one frozen operation it asks for; nothing later looks at the raw query."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from transom.s3compat import names, ranges, tokens
from transom.s3compat.addressing import Address
from transom.s3compat.conditions import Conditions
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import fields, transforms, types
from transom.s3compat.operations.route import operation_name
from transom.s3compat.query import Query
from transom.s3compat.request import HttpRequest

_WANTED_ATTRIBUTES = frozenset(("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"))
_RESPONSE_OVERRIDES = {
    "response-content-type": "content-type",
    "response-content-language": "content-language",
    "response-expires": "expires",
    "response-cache-control": "cache-control",
    "response-content-disposition": "content-disposition",
    "response-content-encoding": "content-encoding",
}


def parse(request: HttpRequest, address: Address) -> types.Operation:
    """Return the operation. One that isn't implemented raises NotImplemented by its S3 name."""
    name = operation_name(request, address)
    builder = _BUILDERS.get(name)
    if builder is None:
        raise S3Error("NotImplemented", f"{name} is not implemented")
    if address.bucket:
        names.check_bucket_reference(address.bucket)
        if address.key:
            names.check_key(address.key)
    query = request.query
    headers = request.effective_headers
    fields.refuse_unsupported(headers)
    if name not in ("GetObject", "HeadObject"):
        transforms.refuse(query)
    return builder(request, address, query, headers)


# --- one builder an operation -------------------------------------------------------------------

_Builder = Callable[[HttpRequest, Address, Query, Mapping[str, str]], types.Operation]


def _owner(headers: Mapping[str, str]) -> str:
    return headers.get("x-amz-expected-bucket-owner", "")


def _list_buckets(
    _request: HttpRequest, _address: Address, query: Query, _headers: Mapping[str, str]
) -> types.ListBuckets:
    return types.ListBuckets(
        prefix=query.get("prefix") or "",
        max_buckets=fields.integer(query, "max-buckets", 10_000, low=1, high=10_000),
        continuation_token=query.get("continuation-token"),
    )


def _create_bucket(
    _request: HttpRequest, address: Address, _query: Query, headers: Mapping[str, str]
) -> types.CreateBucket:
    names.check_bucket_name(address.bucket)
    ownership = headers.get("x-amz-object-ownership", "")
    if ownership not in ("", "BucketOwnerPreferred", "ObjectWriter", "BucketOwnerEnforced"):
        raise fields.invalid("x-amz-object-ownership", ownership)
    return types.CreateBucket(bucket=address.bucket, acl=fields.acl(headers), object_ownership=ownership)


def _on_bucket(operation: Callable[..., types.BucketOperation]) -> _Builder:
    """Make the builder of an operation that takes nothing but its bucket."""

    def build(
        _request: HttpRequest, address: Address, _query: Query, headers: Mapping[str, str]
    ) -> types.BucketOperation:
        return operation(bucket=address.bucket, expected_owner=_owner(headers))

    return build


def _on_version(operation: Callable[..., types.ObjectOperation]) -> _Builder:
    """Make the builder of an operation that takes nothing but an object and its version."""

    def build(
        _request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]
    ) -> types.ObjectOperation:
        return operation(
            bucket=address.bucket,
            key=address.key,
            version_id=fields.version_id(query),
            expected_owner=_owner(headers),
        )

    return build


def _put_bucket_acl(
    _request: HttpRequest, address: Address, _query: Query, headers: Mapping[str, str]
) -> types.PutBucketAcl:
    return types.PutBucketAcl(bucket=address.bucket, acl=fields.acl(headers), expected_owner=_owner(headers))


def _put_object_acl(
    _request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]
) -> types.PutObjectAcl:
    return types.PutObjectAcl(
        bucket=address.bucket,
        key=address.key,
        version_id=fields.version_id(query),
        acl=fields.acl(headers),
        expected_owner=_owner(headers),
    )


# --- listings -----------------------------------------------------------------------------------


def _list_objects(
    _request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]
) -> types.ListObjects:
    return types.ListObjects(
        bucket=address.bucket,
        prefix=query.get("prefix") or "",
        delimiter=query.get("delimiter") or "",
        marker=query.get("marker") or "",
        limit=fields.integer(query, "max-keys", fields.MAX_PAGE, high=fields.MAX_PAGE),
        encoding_type=fields.encoding_type(query),
        expected_owner=_owner(headers),
    )


def _list_objects_v2(
    _request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]
) -> types.ListObjectsV2:
    token = query.get("continuation-token")
    return types.ListObjectsV2(
        bucket=address.bucket,
        prefix=query.get("prefix") or "",
        delimiter=query.get("delimiter") or "",
        start_after=query.get("start-after") or "",
        continuation_token=token,
        token_after=tokens.decode(token) if token else "",
        fetch_owner=query.get("fetch-owner", "") == "true",
        limit=fields.integer(query, "max-keys", fields.MAX_PAGE, high=fields.MAX_PAGE),
        encoding_type=fields.encoding_type(query),
        expected_owner=_owner(headers),
    )


def _list_object_versions(
    _request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]
) -> types.ListObjectVersions:
    key_marker, version_marker = query.get("key-marker") or "", query.get("version-id-marker") or ""
    if version_marker and not key_marker:
        raise fields.invalid(
            "version-id-marker", version_marker, "A version-id marker cannot be specified without a key marker."
        )
    return types.ListObjectVersions(
        bucket=address.bucket,
        prefix=query.get("prefix") or "",
        delimiter=query.get("delimiter") or "",
        key_marker=key_marker,
        version_id_marker=version_marker,
        limit=fields.integer(query, "max-keys", fields.MAX_PAGE, high=fields.MAX_PAGE),
        encoding_type=fields.encoding_type(query),
        expected_owner=_owner(headers),
    )


def _list_multipart_uploads(
    _request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]
) -> types.ListMultipartUploads:
    key_marker = query.get("key-marker") or ""
    return types.ListMultipartUploads(
        bucket=address.bucket,
        prefix=query.get("prefix") or "",
        delimiter=query.get("delimiter") or "",
        key_marker=key_marker,
        # Without a key marker S3 pays no heed to this one.
        upload_id_marker=(query.get("upload-id-marker") or "") if key_marker else "",
        limit=fields.integer(query, "max-uploads", fields.MAX_PAGE, high=fields.MAX_PAGE),
        encoding_type=fields.encoding_type(query),
        expected_owner=_owner(headers),
    )


def _delete_objects(
    _request: HttpRequest, address: Address, _query: Query, headers: Mapping[str, str]
) -> types.DeleteObjects:
    fields.demand_digest(headers)
    return types.DeleteObjects(bucket=address.bucket, expected_owner=_owner(headers))


# --- objects ------------------------------------------------------------------------------------


def _read(operation: type[types.GetObject] | type[types.HeadObject]) -> _Builder:
    def build(_request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]) -> types.Operation:
        checksum_mode = headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
        if not len(query):  # by far the most frequent
            return operation(
                bucket=address.bucket, key=address.key, checksum_mode=checksum_mode, expected_owner=_owner(headers)
            )
        part = fields.part_number(query.get("partNumber")) if query.has("partNumber") else None
        if part is not None and "range" in headers:
            raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter.")
        return operation(
            bucket=address.bucket,
            key=address.key,
            version_id=fields.version_id(query),
            part_number=part,
            response_overrides=_overrides(query),
            checksum_mode=checksum_mode,
            transform=transforms.parse(query),
            expected_owner=_owner(headers),
        )

    return build


def _overrides(query: Query) -> dict[str, str]:
    found = {}
    for parameter, header in _RESPONSE_OVERRIDES.items():
        value = query.first.get(parameter)
        if value:
            if not value.isprintable() or not _fits_latin1(value):
                raise fields.invalid(parameter, value)
            found[header] = value
    return found


def _fits_latin1(value: str) -> bool:
    return all(each <= "\xff" for each in value)


def _put_object(_request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]) -> types.PutObject:
    if query.has("partNumber"):
        raise fields.invalid("partNumber", query.get("partNumber") or "", "partNumber needs an uploadId")
    return types.PutObject(
        bucket=address.bucket,
        key=address.key,
        attributes=fields.new_attributes(headers),
        write_if=fields.write_if(headers),
        checksum_algorithm=fields.checksum_algorithm(headers),
        expected_owner=_owner(headers),
    )


def _copy_object(
    _request: HttpRequest, address: Address, _query: Query, headers: Mapping[str, str]
) -> types.CopyObject:
    return types.CopyObject(
        bucket=address.bucket,
        key=address.key,
        source=fields.copy_source(headers),
        source_if=Conditions.parse_copy(headers),
        metadata_directive=fields.directive(headers, "x-amz-metadata-directive"),
        tagging_directive=fields.directive(headers, "x-amz-tagging-directive"),
        attributes=fields.new_attributes(headers),
        storage_class=fields.storage_class(headers),
        write_if=fields.write_if(headers),
        checksum_algorithm=fields.checksum_algorithm(headers),
        expected_owner=_owner(headers),
    )


def _delete_object(
    _request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]
) -> types.DeleteObject:
    return types.DeleteObject(
        bucket=address.bucket,
        key=address.key,
        version_id=fields.version_id(query),
        write_if=fields.write_if(headers),
        expected_owner=_owner(headers),
    )


def _get_object_attributes(
    _request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]
) -> types.GetObjectAttributes:
    name = "x-amz-object-attributes"
    wanted = frozenset(filter(None, map(str.strip, headers.get(name, "").split(","))))
    if not wanted or not wanted <= _WANTED_ATTRIBUTES:
        raise fields.invalid(name, headers.get(name, ""), "Invalid attribute name specified.")
    limit = fields.checked_integer("x-amz-max-parts", headers.get("x-amz-max-parts") or "1000", high=fields.MAX_PAGE)
    marker = headers.get("x-amz-part-number-marker") or "0"
    return types.GetObjectAttributes(
        bucket=address.bucket,
        key=address.key,
        version_id=fields.version_id(query),
        wanted=wanted,
        max_parts=limit,
        part_number_marker=fields.checked_integer("x-amz-part-number-marker", marker),
        expected_owner=_owner(headers),
    )


# --- multipart ----------------------------------------------------------------------------------


def _create_multipart_upload(
    _request: HttpRequest, address: Address, _query: Query, headers: Mapping[str, str]
) -> types.CreateMultipartUpload:
    algorithm, kind = fields.checksum_algorithm(headers), fields.checksum_type(headers)
    if kind and not algorithm:
        raise S3Error(
            "InvalidRequest", "The x-amz-checksum-type header can only be used with x-amz-checksum-algorithm."
        )
    if algorithm:
        kind = kind or ("FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE")
        impossible = "SHA" if kind == "FULL_OBJECT" else "CRC64NVME"
        if algorithm.startswith(impossible):
            raise S3Error("InvalidRequest", f"The {kind} checksum type cannot be used with the {algorithm} algorithm.")
    return types.CreateMultipartUpload(
        bucket=address.bucket,
        key=address.key,
        attributes=fields.new_attributes(headers),
        checksum_algorithm=algorithm,
        checksum_type=kind,
        expected_owner=_owner(headers),
    )


def _upload_part(_request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]) -> types.UploadPart:
    return types.UploadPart(
        bucket=address.bucket,
        key=address.key,
        upload_id=fields.upload_id(query),
        part_number=fields.part_number(query.get("partNumber")),
        checksum_algorithm=fields.checksum_algorithm(headers),
        expected_owner=_owner(headers),
    )


def _upload_part_copy(
    _request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]
) -> types.UploadPartCopy:
    wanted = headers.get("x-amz-copy-source-range")
    return types.UploadPartCopy(
        bucket=address.bucket,
        key=address.key,
        upload_id=fields.upload_id(query),
        part_number=fields.part_number(query.get("partNumber")),
        source=fields.copy_source(headers),
        source_range=None if wanted is None else ranges.parse_copy_range(wanted),
        source_if=Conditions.parse_copy(headers),
        expected_owner=_owner(headers),
    )


def _complete_multipart_upload(
    _request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]
) -> types.CompleteMultipartUpload:
    size = headers.get("x-amz-mp-object-size")
    if size is not None and not re.fullmatch(r"\d{1,18}", size, re.ASCII):
        raise fields.invalid("x-amz-mp-object-size", size)
    return types.CompleteMultipartUpload(
        bucket=address.bucket,
        key=address.key,
        upload_id=fields.upload_id(query),
        write_if=fields.write_if(headers),
        checksums=fields.checksum_values(headers),
        checksum_type=fields.checksum_type(headers),
        object_size=None if size is None else int(size),
        expected_owner=_owner(headers),
    )


def _abort_multipart_upload(
    _request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]
) -> types.AbortMultipartUpload:
    return types.AbortMultipartUpload(
        bucket=address.bucket, key=address.key, upload_id=fields.upload_id(query), expected_owner=_owner(headers)
    )


def _list_parts(_request: HttpRequest, address: Address, query: Query, headers: Mapping[str, str]) -> types.ListParts:
    return types.ListParts(
        bucket=address.bucket,
        key=address.key,
        upload_id=fields.upload_id(query),
        part_number_marker=fields.integer(query, "part-number-marker", 0),
        limit=fields.integer(query, "max-parts", fields.MAX_PAGE, high=fields.MAX_PAGE),
        encoding_type=fields.encoding_type(query),
        expected_owner=_owner(headers),
    )


_BUILDERS: Mapping[str, _Builder] = {
    "ListBuckets": _list_buckets,
    "CreateBucket": _create_bucket,
    "HeadBucket": _on_bucket(types.HeadBucket),
    "DeleteBucket": _on_bucket(types.DeleteBucket),
    "GetBucketLocation": _on_bucket(types.GetBucketLocation),
    "GetBucketAcl": _on_bucket(types.GetBucketAcl),
    "PutBucketAcl": _put_bucket_acl,
    "GetBucketVersioning": _on_bucket(types.GetBucketVersioning),
    "ListObjects": _list_objects,
    "ListObjectsV2": _list_objects_v2,
    "ListObjectVersions": _list_object_versions,
    "ListMultipartUploads": _list_multipart_uploads,
    "DeleteObjects": _delete_objects,
    "GetObject": _read(types.GetObject),
    "HeadObject": _read(types.HeadObject),
    "PutObject": _put_object,
    "CopyObject": _copy_object,
    "DeleteObject": _delete_object,
    "GetObjectAcl": _on_version(types.GetObjectAcl),
    "PutObjectAcl": _put_object_acl,
    "GetObjectTagging": _on_version(types.GetObjectTagging),
    "PutObjectTagging": _on_version(types.PutObjectTagging),
    "DeleteObjectTagging": _on_version(types.DeleteObjectTagging),
    "GetObjectAttributes": _get_object_attributes,
    "CreateMultipartUpload": _create_multipart_upload,
    "UploadPart": _upload_part,
    "UploadPartCopy": _upload_part_copy,
    "CompleteMultipartUpload": _complete_multipart_upload,
    "AbortMultipartUpload": _abort_multipart_upload,
    "ListParts": _list_parts,
}
