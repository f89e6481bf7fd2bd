"""The objects that a sort reads: which are shards and which are members, and the records that member names belong to.

It reads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from transom.plugins.builtin.shard import record_name
from transom.plugins.builtin.tar_stream import ENCODING, ERRORS

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.zst", ".tzst")


class Kind(IntEnum):
    """What an object is: a member itself, a tar archive, or one that is compressed.

    What has the name of an archive, and what has a name that tells nothing, must be looked into first.
    """

    PLAIN = 0
    ARCHIVE = 1
    PACKED = 2
    NAMED = 3
    UNKNOWN = 4


@dataclass(frozen=True, slots=True)
class SourceObject:
    """An object to read: number `n` of a sort's sources. As a plain one it is the member `name`."""

    n: int
    bucket: str
    key: str
    size: int
    etag: str
    kind: Kind
    name: bytes = b""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A member where it is: in source number `source`, at `offset` of it (unpacked, if it is compressed)."""

    source: int
    offset: int
    size: int
    name: bytes


def kind_of(key: str) -> Kind:
    """Tell by an object's name what it is."""
    name = key.rpartition("/")[2].lower()
    if name.endswith(_ARCHIVES):
        return Kind.NAMED
    return Kind.PLAIN if "." in name else Kind.UNKNOWN


def record_of(name: bytes) -> tuple[bytes, str]:
    """Split a member's name into its record's name and its extension, in lower case.

    What WebDataset would leave out, having no extension, is a record of its own under its whole name.
    """
    record, extension = record_name(name.decode(ENCODING, ERRORS)) or (None, "")
    return (name if record is None else record.encode(ENCODING, ERRORS)), extension
