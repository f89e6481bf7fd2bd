"""What `tar` and `tar2tf` share: opening a shard, packed or not, and the names in it as WebDataset reads them.

A record is the members in a row whose names are the same up to the first dot of the file name.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from transom.plugins.builtin.compress import Algorithm, DecompressArgs, algorithm_of, decompressed
from transom.plugins.builtin.tar_stream import BLOCK, Member, is_header, read

GIB = 1024 * 1024 * 1024

_RECORD_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_GLOB = frozenset("*?[")


def _listed(value: object) -> object:
    """Take `jpg,cls` for a list, so that an option need not be JSON."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) and value[:1] != "[" else value


Name = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Names = Annotated[tuple[Name, ...], Field(max_length=10_000), BeforeValidator(_listed)]
"""A list of names or patterns; as an option also a text with commas."""


MaxUnpacked = Annotated[int, Field(gt=0, le=1024 * GIB, description="Most bytes that a packed shard may unpack to.")]
MaxRatio = Annotated[
    int, Field(gt=0, le=1_000_000, description="Most bytes unpacked for a byte packed, once past 16 MiB.")
]
MAX_UNPACKED, MAX_RATIO = 64 * GIB, 200


def members(chunks: Iterable[bytes], *, max_unpacked: int, max_ratio: int) -> tuple[Iterator[Member], Algorithm | None]:
    """Open a shard; return its members and what it is packed with. Raises Reject for what is no tar archive."""
    head, chunks = _peeked(chunks)
    packed = None if is_header(head) else algorithm_of(head)
    if packed is not None:
        bounds = DecompressArgs(algorithm=packed, max_output=max_unpacked, max_ratio=max_ratio)
        chunks = decompressed(chunks, bounds)
    return read(chunks), packed


def record_name(name: str) -> tuple[str, str] | None:
    """Split a member's name into its record's key and its extension; None if it belongs to no record.

    `a/0001.left.jpg` is `left.jpg` of `a/0001`.
    """
    found = _RECORD_NAME.fullmatch(name)
    return (found[1], found[2].lower()) if found else None


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a name has one of the extensions, or fits one of the globs, in `patterns`.

    A glob without a slash is for the file name, one with a slash for the whole.
    """
    return any(_matches(name, pattern) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    if _GLOB.isdisjoint(pattern):
        return name.lower().endswith("." + pattern.removeprefix(".").lower())
    return fnmatch.fnmatchcase(name if "/" in pattern else name.rpartition("/")[2], pattern)


def _peeked(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    rest = iter(chunks)
    seen: list[bytes] = []
    while sum(map(len, seen)) < BLOCK and (chunk := next(rest, None)) is not None:
        seen.append(chunk)
    return b"".join(seen)[:BLOCK], itertools.chain(seen, rest)
