"""Reading open files: from the page cache without a thread where possible, from the disk in a thread.

It knows nothing of buckets or indexes.
"""

from __future__ import annotations

import asyncio
import os
import threading
from abc import abstractmethod
from collections.abc import AsyncIterator
from concurrent.futures import Executor

from transom.target.errors import SourceChanged
from transom.target.store.base import ObjectReader

KIB = 1024
MIB = 1024 * KIB
FIRST_CHUNK = 256 * KIB
NEXT_CHUNK = MIB
_COPIED = 16 * KIB  # up to here a copy costs less than two more system calls
TURN = 8  # chunks from the page cache between two turns of the event loop


class OpenFile:
    """A file descriptor that several threads read; it is closed once the last read under way has ended."""

    __slots__ = ("_closed", "_fd", "_lock", "_nowait", "_users")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False
        self._nowait = hasattr(os, "RWF_NOWAIT")

    def _enter(self) -> int:
        with self._lock:
            if self._closed:
                raise ValueError("the reader is closed")
            self._users += 1
        return self._fd

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._closed and self._users == 0
        if last:
            os.close(self._fd)

    def read(self, length: int, offset: int) -> bytes:
        """Read exactly `length` bytes, or fewer at the file's end; may wait for the disk."""
        fd = self._enter()
        try:
            data = os.pread(fd, length, offset)
            while 0 < len(data) < length:
                more = os.pread(fd, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data
        finally:
            self._leave()

    def read_cached(self, length: int, offset: int) -> bytes | None:
        """Read up to `length` bytes that are in memory already; None when they aren't, or none can tell.

        Of a large piece only the first and the last byte are asked without waiting: reading all that way would cost
        a copy more.
        """
        if not self._nowait or not length:
            return None
        fd = self._enter()
        try:
            if length <= _COPIED:
                buffer = bytearray(length)
                return bytes(memoryview(buffer)[: os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)]) or None
            for at in (offset, offset + length - 1):
                if not os.preadv(fd, [bytearray(1)], at, os.RWF_NOWAIT):
                    return None
            return os.pread(fd, length, offset) or None
        except BlockingIOError:
            return None
        except OSError:  # the file system can't tell: don't ask again
            self._nowait = False
            return None
        finally:
            self._leave()

    def will_need(self, length: int, offset: int) -> None:
        """Start reading ahead, so that the next chunk needs no thread."""
        fd = self._enter()
        try:
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_WILLNEED)
        finally:
            self._leave()

    def stat(self) -> os.stat_result:
        """The file's status as of now."""
        fd = self._enter()
        try:
            return os.fstat(fd)
        finally:
            self._leave()

    def close(self) -> None:
        """Let go of the descriptor; safe to call twice."""
        with self._lock:
            last = not self._closed and self._users == 0
            self._closed = True
        if last:
            os.close(self._fd)

    def __del__(self) -> None:
        self.close()  # a task cancelled between opening and reading has nobody else to do it


class FileReader(ObjectReader):
    """A reader over local files: a subclass says where the bytes are, this pumps them."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads

    @abstractmethod
    def _read_cached(self, offset: int, length: int) -> bytes | None:
        """Read some of the bytes at `offset` without waiting, or None."""

    @abstractmethod
    def _read_ahead(self, offset: int, length: int) -> bytes:
        """Read all of the bytes at `offset`, waiting for the disk; raises SourceChanged when they are short."""

    def at_once(self, start: int, stop: int) -> bytes | None:
        """See ObjectReader."""
        data = self._read_cached(start, stop - start)
        return data if data is not None and len(data) == stop - start else None

    async def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes [start, stop): as few as come at once first, then larger chunks."""
        size = self.info.size
        stop = size if stop is None else min(stop, size)
        at, want, turn = max(start, 0), FIRST_CHUNK, 0
        loop = asyncio.get_running_loop()
        while at < stop:
            length = min(want, stop - at)
            data = self._read_cached(at, length)
            if data is None:
                data = await loop.run_in_executor(self._threads, self._read_ahead, at, length)
                turn = 0
            elif (turn := turn + 1) % TURN == 0:
                await asyncio.sleep(0)  # a consumer that never waits must not hold the event loop
            yield data
            at += len(data)
            want = NEXT_CHUNK


def whole(data: bytes, length: int, name: str) -> bytes:
    """Return `data`, or raise SourceChanged when it is shorter than `length`."""
    if len(data) < length:
        raise SourceChanged(f"{name} is shorter than it was when it was opened.")
    return data
