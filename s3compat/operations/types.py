"""Every implemented S3 operation as a frozen value: what its request said, read once, and nothing of how to do it.

Keys, prefixes and markers are decoded text; ETags are without quotes; `version_id` is None where none was named.
Range and conditions of a read come from the headers, by `transom.s3compat.ranges` and `.conditions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from transom.s3compat.conditions import Conditions
from transom.s3compat.ranges import ByteRange

# --- values shared by several operations -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TransformAsk:
    """A transform named in the query: its stages, their args as sent, and options as (etl, option, value)."""

    pipeline: tuple[str, ...]
    args_json: str | None = None
    options: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AclAsk:
    """An ACL asked for in headers: a canned one by name ("" for none), or grants by header (x-amz-grant-read, …)."""

    canned: str = ""
    grants: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.canned or self.grants)


@dataclass(frozen=True, slots=True)
class NewAttributes:
    """What a writer says about an object beside its bytes.

    `content` holds content-type, content-encoding (without aws-chunked), cache-control, content-disposition,
    content-language and expires under those names, where given; `metadata` holds what follows x-amz-meta-.
    """

    content: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    acl: AclAsk = field(default_factory=AclAsk)
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True)
class WriteIf:
    """Conditions on a write: an ETag without quotes, "*", or None where not given."""

    if_match: str | None = None
    if_none_match: str | None = None

    def __bool__(self) -> bool:
        return self.if_match is not None or self.if_none_match is not None


@dataclass(frozen=True, slots=True)
class CopySource:
    """x-amz-copy-source, decoded."""

    bucket: str
    key: str
    version_id: str | None = None


Directive = Literal["COPY", "REPLACE"]

# --- operations ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Base of all. `expected_owner` is x-amz-expected-bucket-owner, "" where not given."""

    name: ClassVar[str] = ""
    expected_owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketOperation(Operation):
    """An operation on a bucket."""

    bucket: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectOperation(BucketOperation):
    """An operation on an object."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListBuckets(Operation):
    """List the caller's buckets."""

    name: ClassVar[str] = "ListBuckets"
    prefix: str = ""
    max_buckets: int = 10_000
    continuation_token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateBucket(BucketOperation):
    """Make a bucket. Its body, if any, is read by `parse_create_bucket`."""

    name: ClassVar[str] = "CreateBucket"
    acl: AclAsk = field(default_factory=AclAsk)
    object_ownership: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadBucket(BucketOperation):
    """Ask whether a bucket exists and may be read."""

    name: ClassVar[str] = "HeadBucket"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteBucket(BucketOperation):
    """Remove an empty bucket."""

    name: ClassVar[str] = "DeleteBucket"


@dataclass(frozen=True, slots=True, kw_only=True)
class GetBucketLocation(BucketOperation):
    """Ask for a bucket's region."""

    name: ClassVar[str] = "GetBucketLocation"


@dataclass(frozen=True, slots=True, kw_only=True)
class GetBucketAcl(BucketOperation):
    """Ask for a bucket's grants."""

    name: ClassVar[str] = "GetBucketAcl"


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBucketAcl(BucketOperation):
    """Set a bucket's ACL; without `acl` the body holds it, read by `parse_acl`."""

    name: ClassVar[str] = "PutBucketAcl"
    acl: AclAsk = field(default_factory=AclAsk)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetBucketVersioning(BucketOperation):
    """Ask for a bucket's versioning state."""

    name: ClassVar[str] = "GetBucketVersioning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(BucketOperation):
    """What every listing of keys takes. `encoding_type` is "url" or ""; `limit` is max-keys, at most 1000."""

    prefix: str = ""
    delimiter: str = ""
    encoding_type: str = ""
    limit: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ListObjects(Listing):
    """List keys, version 1."""

    name: ClassVar[str] = "ListObjects"
    marker: str = ""

    @property
    def after(self) -> str:
        """The key or prefix the page starts after."""
        return self.marker


@dataclass(frozen=True, slots=True, kw_only=True)
class ListObjectsV2(Listing):
    """List keys, version 2. `continuation_token` is as sent; `token_after` is what it stands for."""

    name: ClassVar[str] = "ListObjectsV2"
    start_after: str = ""
    continuation_token: str | None = None
    token_after: str = ""
    fetch_owner: bool = False

    @property
    def after(self) -> str:
        """The key or prefix the page starts after: the token's, else start-after."""
        return self.token_after or self.start_after


@dataclass(frozen=True, slots=True, kw_only=True)
class ListObjectVersions(Listing):
    """List versions."""

    name: ClassVar[str] = "ListObjectVersions"
    key_marker: str = ""
    version_id_marker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListMultipartUploads(Listing):
    """List uploads under way; `limit` is max-uploads."""

    name: ClassVar[str] = "ListMultipartUploads"
    key_marker: str = ""
    upload_id_marker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteObjects(BucketOperation):
    """Remove several objects; the body names them, read by `parse_delete_objects`."""

    name: ClassVar[str] = "DeleteObjects"


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(ObjectOperation):
    """What GetObject and HeadObject share.

    `response_overrides` maps header names (content-type, …) to the values of the response-* parameters.
    """

    version_id: str | None = None
    part_number: int | None = None
    response_overrides: Mapping[str, str] = field(default_factory=dict)
    checksum_mode: bool = False
    transform: TransformAsk | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetObject(Read):
    """Read an object."""

    name: ClassVar[str] = "GetObject"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadObject(Read):
    """Read what is known of an object."""

    name: ClassVar[str] = "HeadObject"


@dataclass(frozen=True, slots=True, kw_only=True)
class PutObject(ObjectOperation):
    """Write an object. `checksum_algorithm` is "" or "CRC32" …."""

    name: ClassVar[str] = "PutObject"
    attributes: NewAttributes = field(default_factory=NewAttributes)
    write_if: WriteIf = field(default_factory=WriteIf)
    checksum_algorithm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyObject(ObjectOperation):
    """Write an object with the bytes of another.

    Of `attributes`, content headers, metadata and tags count where the directive is REPLACE, the ACL always;
    `storage_class` is None where none was given.
    """

    name: ClassVar[str] = "CopyObject"
    source: CopySource
    source_if: Conditions = field(default_factory=Conditions)
    metadata_directive: Directive = "COPY"
    tagging_directive: Directive = "COPY"
    attributes: NewAttributes = field(default_factory=NewAttributes)
    storage_class: str | None = None
    write_if: WriteIf = field(default_factory=WriteIf)
    checksum_algorithm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteObject(ObjectOperation):
    """Remove an object."""

    name: ClassVar[str] = "DeleteObject"
    version_id: str | None = None
    write_if: WriteIf = field(default_factory=WriteIf)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetObjectAcl(ObjectOperation):
    """Ask for an object's grants."""

    name: ClassVar[str] = "GetObjectAcl"
    version_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PutObjectAcl(ObjectOperation):
    """Set an object's ACL; without `acl` the body holds it, read by `parse_acl`."""

    name: ClassVar[str] = "PutObjectAcl"
    version_id: str | None = None
    acl: AclAsk = field(default_factory=AclAsk)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetObjectTagging(ObjectOperation):
    """Ask for an object's tags."""

    name: ClassVar[str] = "GetObjectTagging"
    version_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PutObjectTagging(ObjectOperation):
    """Replace an object's tags; the body holds them, read by `parse_tagging`."""

    name: ClassVar[str] = "PutObjectTagging"
    version_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteObjectTagging(ObjectOperation):
    """Remove an object's tags."""

    name: ClassVar[str] = "DeleteObjectTagging"
    version_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetObjectAttributes(ObjectOperation):
    """Ask for chosen attributes: ETag, Checksum, ObjectParts, StorageClass, ObjectSize."""

    name: ClassVar[str] = "GetObjectAttributes"
    version_id: str | None = None
    wanted: frozenset[str]
    max_parts: int = 1000
    part_number_marker: int = 0


# --- multipart ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateMultipartUpload(ObjectOperation):
    """Start an upload. `checksum_type` is FULL_OBJECT, COMPOSITE, or "" when no algorithm was named."""

    name: ClassVar[str] = "CreateMultipartUpload"
    attributes: NewAttributes = field(default_factory=NewAttributes)
    checksum_algorithm: str = ""
    checksum_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPart(ObjectOperation):
    """Send a part."""

    name: ClassVar[str] = "UploadPart"
    upload_id: str
    part_number: int
    checksum_algorithm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPartCopy(ObjectOperation):
    """Make a part of an object's bytes; resolve `source_range` by `ranges.resolve_copy_range`."""

    name: ClassVar[str] = "UploadPartCopy"
    upload_id: str
    part_number: int
    source: CopySource
    source_range: ByteRange | None = None
    source_if: Conditions = field(default_factory=Conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteMultipartUpload(ObjectOperation):
    """Make the object; the body names the parts, read by `parse_complete_multipart_upload`.

    `checksums` maps "CRC32", … to the value claimed for the object; `object_size` is x-amz-mp-object-size.
    """

    name: ClassVar[str] = "CompleteMultipartUpload"
    upload_id: str
    write_if: WriteIf = field(default_factory=WriteIf)
    checksums: Mapping[str, str] = field(default_factory=dict)
    checksum_type: str = ""
    object_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortMultipartUpload(ObjectOperation):
    """Drop an upload."""

    name: ClassVar[str] = "AbortMultipartUpload"
    upload_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListParts(ObjectOperation):
    """List an upload's parts; `limit` is max-parts."""

    name: ClassVar[str] = "ListParts"
    upload_id: str
    part_number_marker: int = 0
    limit: int = 1000
    encoding_type: str = ""
