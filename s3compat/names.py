"""The rules for bucket names and keys, as Amazon states them."""

from __future__ import annotations

import re

from transom.s3compat.errors import S3Error

MIN_BUCKET_CHARACTERS, MAX_BUCKET_CHARACTERS = 3, 63
MAX_KEY_BYTES = 1024
VIEW_INFIX = "--etl--"  # BUCKET--etl--NAME is the implicit view of a bucket through an ETL

_LABELS = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_REFERENCE = re.compile(
    rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,254}}|[A-Za-z0-9][A-Za-z0-9._-]{{0,62}}{VIEW_INFIX}[^/]{{1,1024}}"
)
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def check_bucket_name(name: str) -> None:
    """Refuse what can't be the name of a new bucket (docs.aws.amazon.com, 'Bucket naming rules')."""
    good = (
        MIN_BUCKET_CHARACTERS <= len(name) <= MAX_BUCKET_CHARACTERS
        and _LABELS.fullmatch(name)
        and not _IPV4.fullmatch(name)
        and not name.startswith(_RESERVED_PREFIXES)
        and not name.endswith(_RESERVED_SUFFIXES)
        and VIEW_INFIX not in name
    )
    if not good:
        raise S3Error("InvalidBucketName", BucketName=name)


def check_bucket_reference(name: str) -> None:
    """Refuse what can't name any bucket or view, so that no path trick reaches a store; '-' is not a bucket."""
    if not _REFERENCE.fullmatch(name):
        raise S3Error("InvalidBucketName", BucketName=name)


def check_key(key: str) -> None:
    """Refuse a key that is empty or longer than S3 allows."""
    if not key:
        raise S3Error("InvalidArgument", "The key must not be empty.", ArgumentName="key", ArgumentValue="")
    if len(key) > MAX_KEY_BYTES or (not key.isascii() and len(key.encode()) > MAX_KEY_BYTES):
        raise S3Error("KeyTooLongError", Size=str(len(key.encode())), MaxSizeAllowed=str(MAX_KEY_BYTES))
