"""Request bodies in XML: what DeleteObjects, CompleteMultipartUpload, CreateBucket, tagging and ACLs say."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from transom.s3compat import tags, xml
from transom.s3compat.acl import PERMISSIONS, AccessControlPolicy, Grant
from transom.s3compat.checksums import ALGORITHMS
from transom.s3compat.errors import S3Error
from transom.s3compat.etags import unquote
from transom.s3compat.operations.fields import MAX_PART_NUMBER

MAX_BODY_BYTES = 4 * xml.MIB  # a completion of 10,000 parts with checksums fits; nothing else comes near
MAX_DELETED_KEYS = 1000

_NUMBER = re.compile(r"\d{1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class DoomedObject:
    """One object of a DeleteObjects request; `etag` is a condition on it, without quotes."""

    key: str
    version_id: str | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """The body of DeleteObjects; `quiet` asks for errors only."""

    objects: tuple[DoomedObject, ...]
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class CompletedPart:
    """One part of a completion; `checksums` maps "CRC32", … to the value claimed."""

    number: int
    etag: str
    checksums: Mapping[str, str] = field(default_factory=dict)


def parse_delete_objects(body: bytes) -> DeleteRequest:
    """Read the body of DeleteObjects: 1 to 1000 objects."""
    root = xml.parse(body, "Delete", limit_bytes=MAX_BODY_BYTES)
    objects = []
    for element in xml.elements(root, "Object"):
        key = xml.required(element, "Key")
        if not key:
            raise S3Error("MalformedXML")
        etag = xml.text(element, "ETag")
        objects.append(
            DoomedObject(key, xml.text(element, "VersionId") or None, None if etag is None else unquote(etag))
        )
    if not 1 <= len(objects) <= MAX_DELETED_KEYS:
        raise S3Error("MalformedXML")
    return DeleteRequest(tuple(objects), quiet=(xml.text(root, "Quiet") or "").strip().lower() == "true")


def parse_complete_multipart_upload(body: bytes) -> tuple[CompletedPart, ...]:
    """Read the body of CompleteMultipartUpload; InvalidPartOrder unless the numbers ascend.

    A part sent twice at once may be named twice in a row: the later mention counts.
    """
    root = xml.parse(body, "CompleteMultipartUpload", limit_bytes=MAX_BODY_BYTES)
    parts = tuple(_completed_part(element) for element in xml.elements(root, "Part"))
    if not 1 <= len(parts) <= MAX_PART_NUMBER:
        raise S3Error("MalformedXML")
    for earlier, later in itertools.pairwise(parts):
        if earlier.number > later.number:
            raise S3Error("InvalidPartOrder")
    return tuple({part.number: part for part in parts}.values())


def _completed_part(element: xml.Element) -> CompletedPart:
    number = xml.required(element, "PartNumber").strip()
    if not _NUMBER.fullmatch(number):
        raise S3Error("MalformedXML")
    if not 1 <= int(number) <= MAX_PART_NUMBER:
        raise S3Error("InvalidArgument", f"PartNumber must be >= 1 and <= {MAX_PART_NUMBER}")
    checksums = {name: value for name in ALGORITHMS if (value := xml.text(element, "Checksum" + name))}
    return CompletedPart(int(number), unquote(xml.required(element, "ETag")), checksums)


def parse_create_bucket(body: bytes) -> str:
    """Read the body of CreateBucket: the location constraint, "" where the body is empty or names none."""
    if not body.strip():
        return ""
    root = xml.parse(body, "CreateBucketConfiguration")
    return (xml.text(root, "LocationConstraint") or "").strip()


def parse_tagging(body: bytes) -> dict[str, str]:
    """Read the body of PutObjectTagging, within S3's limits."""
    root = xml.parse(body, "Tagging")
    if "TagSet" not in root:
        raise S3Error("MalformedXML")
    if not isinstance(root["TagSet"], Mapping):
        return {}
    found = xml.elements(root["TagSet"], "Tag")
    return tags.tag_set((xml.required(tag, "Key"), xml.required(tag, "Value")) for tag in found)


def parse_acl(body: bytes) -> AccessControlPolicy:
    """Read an AccessControlPolicy; MalformedACLError where its grants make no sense."""
    root = xml.parse(body, "AccessControlPolicy")
    owner = root.get("Owner")
    if not isinstance(owner, Mapping):
        raise S3Error("MalformedACLError")
    listed = root.get("AccessControlList")
    grants = xml.elements(listed, "Grant") if isinstance(listed, Mapping) else []
    return AccessControlPolicy(xml.text(owner, "ID") or "", tuple(map(_grant, grants)))


def _grant(element: xml.Element) -> Grant:
    grantee, permission = element.get("Grantee"), xml.text(element, "Permission")
    if not isinstance(grantee, Mapping) or permission not in PERMISSIONS:
        raise S3Error("MalformedACLError")
    for kind, child in (("CanonicalUser", "ID"), ("Group", "URI"), ("AmazonCustomerByEmail", "EmailAddress")):
        if value := xml.text(grantee, child):
            return Grant(kind, value.strip(), permission, xml.text(grantee, "DisplayName") or "")
    raise S3Error("MalformedACLError")
