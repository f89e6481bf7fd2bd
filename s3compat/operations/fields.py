"""Reading single parameters and headers of a request, each refused with the S3 error that fits it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from transom.s3compat import tags
from transom.s3compat.acl import CANNED, GRANT_HEADERS
from transom.s3compat.addressing import split
from transom.s3compat.checksums import ALGORITHMS, UNSUPPORTED, header_name
from transom.s3compat.errors import S3Error
from transom.s3compat.etags import unquote
from transom.s3compat.names import check_bucket_reference, check_key
from transom.s3compat.operations.types import AclAsk, CopySource, Directive, NewAttributes, WriteIf
from transom.s3compat.query import Query

MAX_METADATA_BYTES = 2048
MADE_OF = "transom-"  # begins the names of metadata that says of what a job made an object
MAX_MADE_OF_BYTES = 8192  # a key may be 1 KiB, and each of its bytes three characters
MAX_PART_NUMBER = 10_000
MAX_PAGE = 1000

CONTENT_HEADERS = (
    "content-type",
    "content-encoding",
    "cache-control",
    "content-disposition",
    "content-language",
    "expires",
)
STORAGE_CLASSES = frozenset(
    (
        "STANDARD",
        "REDUCED_REDUNDANCY",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER",
        "DEEP_ARCHIVE",
        "OUTPOSTS",
        "GLACIER_IR",
        "SNOW",
        "EXPRESS_ONEZONE",
        "FSX_OPENZFS",
        "FSX_ONTAP",
    )
)
_META = "x-amz-meta-"
# What would change how the bytes are kept: ignoring one would be a lie.
_UNSUPPORTED = (
    "x-amz-server-side-encryption",
    "x-amz-copy-source-server-side-encryption",
    "x-amz-object-lock-",
    "x-amz-bucket-object-lock-",
    "x-amz-write-offset-bytes",
)


def invalid(name: str, value: str, message: str | None = None) -> S3Error:
    """Build the InvalidArgument that names its argument."""
    return S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=value)


def refuse_unsupported(headers: Mapping[str, str]) -> None:
    """Refuse headers that ask for encryption, locks or appends, which nothing here would honour."""
    for name, value in headers.items():
        if name.startswith(_UNSUPPORTED) and not (name.endswith("lock-enabled") and value.lower() == "false"):
            raise S3Error("NotImplemented", Header=name)


def integer(query: Query, name: str, default: int, *, low: int = 0, high: int = 2**31 - 1) -> int:
    """Read a whole number; absent or empty is the default, and one past `high` comes down to it."""
    text = query.get(name)
    if not text:
        return default
    return checked_integer(name, text, low=low, high=high)


def checked_integer(name: str, text: str, *, low: int = 0, high: int = 2**31 - 1) -> int:
    """Read a whole number from `low` to 2**31 - 1, brought down to `high`."""
    if not re.fullmatch(r"-?\d{1,20}", text, re.ASCII):
        raise invalid(name, text, f"Provided {name} not an integer or within integer range")
    value = int(text)
    if not low <= value <= 2**31 - 1:
        raise invalid(name, text, f"Argument {name} must be an integer between {low} and {2**31 - 1}")
    return min(value, high)


def part_number(text: str | None) -> int:
    """Read a part number, 1 to 10000."""
    if text is None or not re.fullmatch(r"\d{1,5}", text, re.ASCII) or not 1 <= int(text) <= MAX_PART_NUMBER:
        raise invalid("partNumber", text or "", f"Part number must be an integer between 1 and {MAX_PART_NUMBER}")
    return int(text)


def version_id(query: Query) -> str | None:
    """Read versionId; an empty one is refused."""
    value = query.get("versionId")
    if value == "":
        raise invalid("versionId", "", "Version id cannot be the empty string")
    return value


def upload_id(query: Query) -> str:
    """Read uploadId; an empty one names no upload."""
    value = query.get("uploadId")
    if not value:
        raise S3Error("NoSuchUpload", UploadId="")
    return value


def encoding_type(query: Query) -> str:
    """Read encoding-type: "url" or nothing."""
    value = query.get("encoding-type") or ""
    if value not in ("", "url"):
        raise invalid("encoding-type", value, "Invalid Encoding Method specified in Request")
    return value


def acl(headers: Mapping[str, str]) -> AclAsk:
    """Read x-amz-acl or the x-amz-grant-* headers."""
    canned = headers.get("x-amz-acl", "")
    if "x-amz-acl" in headers and canned not in CANNED:
        raise invalid("x-amz-acl", canned)
    grants = {name: headers[name] for name in GRANT_HEADERS if name in headers}
    if canned and grants:
        raise S3Error("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
    return AclAsk(canned, grants)


def storage_class(headers: Mapping[str, str]) -> str | None:
    """Read x-amz-storage-class."""
    value = headers.get("x-amz-storage-class")
    if value is not None and value not in STORAGE_CLASSES:
        raise S3Error("InvalidStorageClass", StorageClassRequested=value)
    return value


def new_attributes(headers: Mapping[str, str]) -> NewAttributes:
    """Read what a write says of its object beside the bytes."""
    content = {name: headers[name] for name in CONTENT_HEADERS if headers.get(name)}
    if "content-encoding" in content:
        kept = [
            each for each in map(str.strip, content["content-encoding"].split(",")) if each not in ("", "aws-chunked")
        ]
        content["content-encoding"] = ", ".join(kept)
        if not kept:
            del content["content-encoding"]
    return NewAttributes(
        content=content,
        metadata=_metadata(headers),
        tags=tags.parse_header(headers["x-amz-tagging"]) if "x-amz-tagging" in headers else {},
        acl=acl(headers),
        storage_class=storage_class(headers) or "STANDARD",
    )


def _metadata(headers: Mapping[str, str]) -> dict[str, str]:
    metadata = {name[len(_META) :]: value for name, value in headers.items() if name.startswith(_META)}
    if metadata:
        made_of = {name: value for name, value in metadata.items() if name.startswith(MADE_OF)}
        ours = _size(made_of)  # apart, since an object that a job makes keeps all of its source's, too
        for size, most in ((_size(metadata) - ours, MAX_METADATA_BYTES), (ours, MAX_MADE_OF_BYTES)):
            if size > most:
                raise S3Error("MetadataTooLarge", Size=str(size), MaxSizeAllowed=str(most))
    return metadata


def _size(metadata: Mapping[str, str]) -> int:
    return sum(len(name) + len(value) for name, value in metadata.items())  # latin-1: a character is a byte


def write_if(headers: Mapping[str, str]) -> WriteIf:
    """Read the conditions on a write."""
    if_match, if_none_match = headers.get("if-match"), headers.get("if-none-match")
    return WriteIf(
        if_match=None if if_match is None else unquote(if_match),
        if_none_match=None if if_none_match is None else unquote(if_none_match),
    )


def checksum_algorithm(headers: Mapping[str, str]) -> str:
    """Return the checksum a write names, as "CRC32" or the like: by header, by trailer or by value; "" for none."""
    for header in ("x-amz-checksum-algorithm", "x-amz-sdk-checksum-algorithm"):
        if value := headers.get(header):
            if value.upper() not in ALGORITHMS:
                raise S3Error("InvalidRequest", f"Value for {header} header is invalid.")
            return value.upper()
    trailer = headers.get("x-amz-trailer", "").lower()
    for algorithm in ALGORITHMS:
        name = header_name(algorithm)
        if name in headers or name == trailer:
            return algorithm
    return ""


def demand_digest(headers: Mapping[str, str]) -> None:
    """Refuse a request that states neither Content-MD5 nor a checksum of its body, by header or trailer."""
    trailers = frozenset(map(str.strip, headers.get("x-amz-trailer", "").lower().split(",")))
    names = ("content-md5", *map(header_name, ALGORITHMS + UNSUPPORTED))
    if not any(name in headers or name in trailers for name in names):
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")


def checksum_values(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the x-amz-checksum-* values sent, by algorithm."""
    names = {algorithm: header_name(algorithm) for algorithm in ALGORITHMS}
    return {algorithm: headers[name] for algorithm, name in names.items() if name in headers}


def checksum_type(headers: Mapping[str, str]) -> str:
    """Read x-amz-checksum-type."""
    value = headers.get("x-amz-checksum-type", "").upper()
    if value not in ("", "COMPOSITE", "FULL_OBJECT"):
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    return value


def directive(headers: Mapping[str, str], name: str) -> Directive:
    """Read a copy's metadata or tagging directive."""
    value = headers.get(name, "COPY")
    if value == "COPY":
        return "COPY"
    if value == "REPLACE":
        return "REPLACE"
    raise invalid(name, value, f"Unknown {name.removeprefix('x-amz-').replace('-', ' ')}.")


def copy_source(headers: Mapping[str, str]) -> CopySource:
    """Read x-amz-copy-source: [/]BUCKET/KEY[?versionId=ID], percent-encoded; a bare '+' is a space, as it is to S3."""
    header = headers["x-amz-copy-source"]
    path, mark, suffix = header.partition("?")
    version: str | None = None
    if mark:
        name, _, version = suffix.partition("=")
        if name != "versionId" or not version:
            raise invalid("x-amz-copy-source", header)
    try:
        address = split("/" + path.removeprefix("/").replace("+", " "), "", ())
        check_bucket_reference(address.bucket)
        check_key(address.key)
    except S3Error as error:
        message = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        raise invalid("x-amz-copy-source", header, message) from error
    return CopySource(address.bucket, address.key, version)
