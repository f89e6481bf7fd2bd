"""Compressed archives unpacked to files, so that their members can be read where they are.

Each is unpacked once for all processes that share a folder, as long as it isn't crowded out by others.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from transom.plugins.builtin.compress import DecompressArgs, decompressed
from transom.plugins.builtin.shard import GIB, MAX_RATIO, MAX_UNPACKED
from transom.plugins.contract import Reject
from transom.target.errors import StoreFull
from transom.target.jobs.sort.sources import SourceObject
from transom.target.store.base import ObjectReader
from transom.target.store.files import OpenFile

_FULL = (errno.ENOSPC, errno.EDQUOT)
KEPT_SIZE = 64 * GIB  # of all files together: past it those used longest ago go
_CHUNK = 1024 * 1024


class Unpacked:
    """A folder of unpacked archives, made when it is first needed."""

    def __init__(self, folder: Path, *, kept_size: int = KEPT_SIZE) -> None:
        self._folder = folder
        self._kept_size = kept_size

    def open(self, source: SourceObject, reader: ObjectReader) -> tuple[OpenFile, int]:
        """Open what `source`, opened as `reader`, unpacks to; return it with its size.

        Blocking. Raises Reject for damaged data and for what unpacks to too much, StoreFull.
        """
        named = f"{source.bucket}/{source.key}\0{source.etag}".encode("utf-8", "surrogatepass")
        path = self._folder / f"{hashlib.sha256(named).hexdigest()[:32]}.tar"
        if (found := _opened(path)) is not None:
            return found
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # who comes second finds it done
                return _opened(path) or self._unpack_if_room(path, reader)
        except OSError as error:
            if error.errno in _FULL:
                raise StoreFull(f"There is no room in {self._folder} to unpack a compressed shard.") from error
            raise

    def _unpack_if_room(self, path: Path, reader: ObjectReader) -> tuple[OpenFile, int]:
        """Unpack; on a full disk once more, in place of those that were unpacked before."""
        try:
            return self._unpack(path, reader)
        except OSError as error:
            if error.errno not in _FULL or not self._crowd_out(path, 0):
                raise
        return self._unpack(path, reader)

    def _unpack(self, path: Path, reader: ObjectReader) -> tuple[OpenFile, int]:
        part, name = tempfile.mkstemp(dir=self._folder, suffix=".part")
        try:
            size = _written(part, reader)
            Path(name).rename(path)
        except BaseException:
            os.close(part)
            Path(name).unlink()
            raise
        self._crowd_out(path, self._kept_size)
        return OpenFile(part), size

    def _crowd_out(self, newest: Path, most: int) -> bool:
        """Remove what was used longest ago while there is more than `most`; whoever has it open reads on.

        Returns whether there was any.
        """
        files: list[tuple[int, int, Path]] = []
        for path in self._folder.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):  # another process crowds out too
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        kept, removed = 0, False
        for _, size, path in sorted(files, key=lambda file: (file[2] == newest, *file), reverse=True):
            kept += size
            if kept > most and path != newest:
                path.unlink(missing_ok=True)
                removed = True
        return removed


def _written(fd: int, reader: ObjectReader) -> int:
    """Unpack into a file; return the size. Raises Reject."""
    bounds = DecompressArgs(algorithm="auto", max_output=MAX_UNPACKED, max_ratio=MAX_RATIO)
    size = 0
    try:
        for piece in decompressed(_chunks(reader), bounds):
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
            size += len(piece)
    except Reject as error:
        raise Reject(f"{error}, {size} bytes into the unpacked archive") from error
    return size


def _opened(path: Path) -> tuple[OpenFile, int] | None:
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    os.utime(fd)
    return OpenFile(fd), os.fstat(fd).st_size


def _chunks(reader: ObjectReader) -> Iterator[bytes]:
    at = 0
    while at < reader.info.size:
        chunk = reader.read_at(at, _CHUNK)
        if not chunk:
            return
        at += len(chunk)
        yield chunk
