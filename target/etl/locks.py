"""Locks by number, shared by every process of a data folder and freed by the kernel when a holder dies.

Open-file-description byte locks on one file: no lock files to clean up, nothing to recover after kill -9.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ByteLocks:
    """Exclusive locks on byte offsets of one file. Two instances exclude each other, in one process too."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._held: set[int] = set()

    def try_lock(self, offset: int) -> bool:
        """Take the lock if nobody holds it; never blocks."""
        if offset in self._held:
            return False
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, offset))
        except (BlockingIOError, PermissionError):
            return False
        self._held.add(offset)
        return True

    def unlock(self, offset: int) -> None:
        """Let go of a lock taken by this instance."""
        self._held.remove(offset)
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, offset))

    def held_elsewhere(self, offset: int) -> bool:
        """Whether somebody else holds the lock just now."""
        answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, offset))
        return bool(struct.unpack_from("@h", answer)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Let go of everything."""
        os.close(self._fd)
        self._held.clear()


class ByteHolds:
    """Shared holds on byte offsets of one file, for anybody to see: each instance counts its own. For any thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._counts: dict[int, int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, offset: int) -> Iterator[None]:
        """Hold an offset for as long as the block runs."""
        self.take(offset)
        try:
            yield
        finally:
            self.drop(offset)

    def take(self, offset: int) -> None:
        """Hold an offset once more."""
        with self._lock:
            count = self._counts.get(offset, 0)
            if not count:
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_RDLCK, offset))
            self._counts[offset] = count + 1

    def drop(self, offset: int) -> None:
        """Hold an offset once less; nothing once closed."""
        with self._lock:
            count = self._counts.pop(offset, 0)
            if count > 1:
                self._counts[offset] = count - 1
            elif count:
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, offset))

    def held_elsewhere(self, offset: int) -> bool:
        """Whether another instance holds the offset just now."""
        answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, offset))
        return bool(struct.unpack_from("@h", answer)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Let go of everything."""
        os.close(self._fd)
        self._counts.clear()


def _flock(kind: int, offset: int) -> bytes:
    # struct flock: type, whence, start, len, pid (which must be 0 for OFD locks)
    return struct.pack("@hhqqi4x", kind, os.SEEK_SET, offset, 1, 0)
