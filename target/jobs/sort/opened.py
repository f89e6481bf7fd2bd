"""Sources opened for reading at any offset, compressed ones unpacked; of many only so many at a time.

It knows nothing of records.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from transom.plugins.builtin.compress import algorithm_of
from transom.plugins.builtin.tar_stream import BLOCK, is_header
from transom.plugins.contract import Reject
from transom.target.errors import SourceChanged
from transom.target.jobs.sort.sources import Kind, SourceObject
from transom.target.jobs.sort.unpacked import Unpacked
from transom.target.store.base import ObjectReader, Store
from transom.target.store.files import FileReader

_OPEN = 64  # file descriptors are few


@dataclass(frozen=True, slots=True)
class Opened:
    """A source open for reading; `source` is it as it is now, of a known kind. `size` is that of what is read.

    `near` says that a read costs as much as a system call; else it may be a request to another machine.
    """

    source: SourceObject
    read_at: Callable[[int, int], bytes]
    size: int
    close: Callable[[], None]
    near: bool


async def open_source(store: Store, source: SourceObject, unpacked: Unpacked) -> Opened:
    """Open an object, see what it is, and unpack it if need be.

    Raises NoSuchKey and what else stores raise; Reject for an archive by name that is none, or is damaged.
    """
    reader = await store.open(source.bucket, source.key)
    try:
        now = replace(source, size=reader.info.size, etag=reader.info.etag)
        if now.kind in (Kind.NAMED, Kind.UNKNOWN):
            now = replace(now, kind=await asyncio.to_thread(_kind, reader, now))
        if now.kind is not Kind.PACKED:
            return Opened(now, reader.read_at, now.size, reader.close, isinstance(reader, FileReader))
        file, size = await asyncio.to_thread(unpacked.open, now, reader)
    except BaseException:
        reader.close()
        raise
    reader.close()
    return Opened(now, lambda offset, length: file.read(length, offset), size, file.close, True)


def _kind(reader: ObjectReader, source: SourceObject) -> Kind:
    """Look at an object's first bytes."""
    head = reader.read_at(0, BLOCK)
    if source.kind is Kind.UNKNOWN:
        return Kind.ARCHIVE if any(head) and is_header(head) else Kind.PLAIN
    if is_header(head):
        return Kind.ARCHIVE
    if algorithm_of(head) is None:
        raise Reject("not a tar archive, by its first bytes: at byte 0 is no header, and no gzip, bz2 or zstd data")
    return Kind.PACKED


class Sources:
    """The sources of one shard, opened as they are needed; close it. For one task of an event loop."""

    def __init__(self, store: Store, unpacked: Unpacked, *, most: int = _OPEN) -> None:
        self._store = store
        self._unpacked = unpacked
        self._most = most
        self._open: OrderedDict[int, Opened] = OrderedDict()

    async def open(self, source: SourceObject) -> Opened:
        """Open a source, or return it as it is open; valid until some others were opened, at least one.

        Raises SourceChanged if it isn't what was scanned, and what `open_source` raises.
        """
        opened = self._open.get(source.n)
        if opened is None:
            while len(self._open) >= self._most:
                self._open.popitem(last=False)[1].close()
            opened = self._open[source.n] = await open_source(self._store, source, self._unpacked)
            if opened.source.etag != source.etag:
                raise SourceChanged(f"{source} was changed since it was scanned; sort again.")
        self._open.move_to_end(source.n)
        return opened

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            self._open.popitem()[1].close()
