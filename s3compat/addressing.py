"""Which bucket and key a request is about: path style, virtual-host style and the endpoint prefix /-/via/PIPELINE.

It tells nothing of whether they exist or may be read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from transom.s3compat.errors import S3Error
from transom.s3compat.query import decode

VIA_PREFIX = "/-/via/"
_BAD_ESCAPE = re.compile("%(?![0-9a-fA-F]{2})")


@dataclass(frozen=True, slots=True)
class Address:
    """Bucket, key and pipeline of a request, each "" where absent. `via` is 'A>>B'."""

    bucket: str
    key: str
    via: str = ""


def split(raw_path: str, host: str, domains: Sequence[str]) -> Address:
    """Take the path, as sent, and the Host header apart; `domains` are those that buckets may stand before.

    A path or key that isn't well-formed percent-encoded UTF-8 is refused with InvalidURI.
    """
    if not raw_path.startswith("/"):
        raise S3Error("InvalidURI")
    via = ""
    if raw_path.startswith(VIA_PREFIX):
        pipeline, slash, rest = raw_path[len(VIA_PREFIX) :].partition("/")
        via = _pipeline(pipeline)
        raw_path = slash + rest or "/"
    bucket = bucket_of_host(host, domains)
    raw_key = raw_path[1:]
    if not bucket:
        raw_bucket, _, raw_key = raw_key.partition("/")
        bucket = _decode(raw_bucket)
        if not bucket and raw_key:
            raise S3Error("InvalidURI")
    return Address(bucket=bucket, key=_decode(raw_key), via=via)


def bucket_of_host(host: str, domains: Sequence[str]) -> str:
    """Return the bucket named before one of `domains` in the Host header, or ""."""
    if not domains:
        return ""
    name = host.lower()
    if not name.startswith("["):
        name = name.partition(":")[0]
    for domain in domains:
        suffix = "." + domain.lower()
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return ""


def _pipeline(raw: str) -> str:
    """Decode a prefix's pipeline. One extra level is undone: botocore encodes an already encoded endpoint again."""
    text = _decode(raw)
    if "%" in text:
        text = _decode(text)
    stages = text.replace("~", ">>").split(">>")
    if not all(stage.strip() for stage in stages):
        raise S3Error(
            "InvalidArgument", "The pipeline has an empty stage.", ArgumentName="via", ArgumentValue=unquote(raw)
        )
    return ">>".join(stage.strip() for stage in stages)


def _decode(text: str) -> str:
    if "%" in text:
        _check_escapes(text)
    return decode(text)


def _check_escapes(text: str) -> None:
    if _BAD_ESCAPE.search(text):
        raise S3Error("InvalidURI")
