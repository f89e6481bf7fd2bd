"""ETags as text: quoting, and lists of them in conditions."""

from __future__ import annotations

import re

from transom.s3compat.errors import S3Error

MAX_LIST_CHARACTERS = 8192

# No two neighbouring repeats can match the same character, so that a list is read in linear time.
_LISTED = re.compile(r'\s*(?:((?:W/)?"[^"]*")\s*|([^,\s"][^,"]*))(?:,|$)')


def quote(etag: str) -> str:
    """Return the ETag as headers and XML carry it, in double quotes."""
    return etag if etag.startswith('"') else f'"{etag}"'


def unquote(text: str) -> str:
    """Return the ETag without quotes; S3 clients send both forms, and some send &quot; through XML twice."""
    text = text.strip().replace("&quot;", '"')
    if text[:1] == '"' == text[-1:] and text != '"':
        return text[1:-1]
    return text


def parse_list(header: str) -> tuple[str, ...]:
    """Return the ETags of an If-Match or If-None-Match header, unquoted; a weak one keeps its W/ before the value.

    "*" stands for itself. S3 also takes bare, unquoted values.
    """
    if len(header) > MAX_LIST_CHARACTERS:
        raise S3Error("RequestHeaderSectionTooLarge", MaxSizeAllowed=str(MAX_LIST_CHARACTERS))
    found = []
    position = 0
    while match := _LISTED.match(header, position):
        position = match.end()
        quoted, bare = match.groups()
        if quoted is None:
            found.append(bare.strip())
        elif quoted.startswith("W/"):
            found.append("W/" + quoted[3:-1])
        else:
            found.append(quoted[1:-1])
        if position >= len(header):
            break
    return tuple(found)
