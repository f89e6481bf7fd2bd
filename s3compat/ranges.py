"""Byte ranges as values: what a Range header asks, and what it comes to on an object of a known size."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transom.s3compat.errors import S3Error

# White space repeats only beside what is there for certain: else a run of it would be split in every possible way.
_RANGE = re.compile(r"\s*bytes\s*=\s*(?:(\d{1,20})\s*)?-\s*(?:(\d{1,20})\s*)?", re.IGNORECASE | re.ASCII)
_COPY_RANGE = re.compile(r"bytes=(\d{1,20})-(\d{1,20})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """One range, inclusive at both ends as HTTP has it. No `first`: the last `last` bytes. No `last`: to the end."""

    first: int | None
    last: int | None

    def __str__(self) -> str:
        return f"bytes={'' if self.first is None else self.first}-{'' if self.last is None else self.last}"

    def resolve(self, size: int) -> tuple[int, int]:
        """Return (start, stop), stop exclusive, within an object of `size` bytes; InvalidRange if no byte is in it."""
        if self.first is None:
            wanted = self.last or 0
            start, stop = max(0, size - wanted), size
        else:
            start = self.first
            stop = size if self.last is None else min(self.last + 1, size)
        if start >= stop:
            raise S3Error(
                "InvalidRange",
                headers={"Content-Range": f"bytes */{size}"},
                ActualObjectSize=str(size),
                RangeRequested=str(self),
            )
        return start, stop


def parse_range(header: str | None) -> ByteRange | None:
    """Read a Range header. None, so the whole object, where there is none, or one that is malformed or multiple."""
    match = _RANGE.fullmatch(header) if header else None
    if match is None or match.group(1) is match.group(2) is None:
        return None
    first, last = (None if end is None else int(end) for end in match.groups())
    if first is not None and last is not None and first > last:
        return None
    return ByteRange(first, last)


def content_range(start: int, stop: int, size: int) -> str:
    """Return the Content-Range header of the bytes [start, stop)."""
    return f"bytes {start}-{stop - 1}/{size}"


def parse_copy_range(header: str) -> ByteRange:
    """Read x-amz-copy-source-range, which is strict: both ends given, in order."""
    match = _COPY_RANGE.fullmatch(header)
    if match is None or int(match.group(1)) > int(match.group(2)):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=header,
        )
    return ByteRange(int(match.group(1)), int(match.group(2)))


def resolve_copy_range(wanted: ByteRange, size: int) -> tuple[int, int]:
    """Return (start, stop) of a copy's range; unlike a read's it must lie wholly inside the source."""
    start, stop = wanted.resolve(size)
    if wanted.last is not None and wanted.last >= size:
        raise S3Error("InvalidRange", ActualObjectSize=str(size), RangeRequested=str(wanted))
    return start, stop
