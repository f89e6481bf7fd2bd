"""Reads an object to its end and tells whether it still is what its description says.

It knows nothing of jobs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from transom.target.store.base import ObjectReader, Part

_READ = 1024 * 1024
_MD5 = re.compile(r"[0-9a-f]{32}")


def find_damage(reader: ObjectReader) -> str:
    """Read an object whole; say what is wrong with it, "" if nothing is. Blocking.

    Its MD5 is compared where the ETag is one, part by part if it came in parts. Raises SourceChanged.
    """
    info = reader.info
    if info.parts:
        return _damage_of_parts(reader, info.parts)
    found, size = _digest(reader, 0, info.size)
    if size != info.size:
        return f"it has {size} bytes where its description says {info.size}"
    if _MD5.fullmatch(info.etag) and found != info.etag:
        return f"the MD5 of its bytes is {found} where its ETag says {info.etag}"
    return ""


def _damage_of_parts(reader: ObjectReader, parts: Sequence[Part]) -> str:
    start = 0
    for part in parts:
        found, size = _digest(reader, start, part.size)
        if size != part.size or found != part.etag:
            return f"part {part.number}: {size} bytes with MD5 {found} where {part.size} with {part.etag} are due"
        start += part.size
    return ""


def _digest(reader: ObjectReader, start: int, length: int) -> tuple[str, int]:
    """The MD5 of up to `length` bytes at `start`, in hex, and how many there are."""
    md5 = hashlib.md5(usedforsecurity=False)
    read = 0
    while read < length:
        piece = reader.read_at(start + read, min(_READ, length - read))
        if not piece:
            break
        md5.update(piece)
        read += len(piece)
    return md5.hexdigest(), read
