"""Object tags: reading the x-amz-tagging header, and the limits S3 sets on a tag set."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote_plus

from transom.s3compat.errors import S3Error

MAX_TAGS = 10
MAX_KEY_CHARACTERS = 128
MAX_VALUE_CHARACTERS = 256


def parse_header(header: str) -> dict[str, str]:
    """Read 'a=1&b=2', percent-encoded; a tag without '=' has the empty value."""
    pairs = []
    for piece in header.split("&"):
        if piece:
            key, _, value = piece.partition("=")
            try:
                pairs.append((unquote_plus(key, errors="strict"), unquote_plus(value, errors="strict")))
            except UnicodeDecodeError as error:
                raise S3Error(
                    "InvalidArgument",
                    "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters.",
                    ArgumentName="x-amz-tagging",
                    ArgumentValue=header,
                ) from error
    return tag_set(pairs)


def tag_set(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Check tags against S3's limits and return them as a mapping, in order."""
    tags: dict[str, str] = {}
    for key, value in pairs:
        if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", TagKey=key)
        if len(value) > MAX_VALUE_CHARACTERS:
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid", TagKey=key, TagValue=value)
        if key in tags:
            raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key", TagKey=key)
        tags[key] = value
    if len(tags) > MAX_TAGS:
        raise S3Error("InvalidTag", f"Object tags cannot be greater than {MAX_TAGS}")
    return tags
