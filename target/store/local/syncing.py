"""Makes all that was written to a file system durable by one call, where the kernel says truly whether it worked.

It knows nothing of blobs or indexes.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache

# Those whose syncfs waits for data, entries and the disk's own cache: see fs/*/super.c of Linux. Not so FUSE's.
_TRUSTED = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0xF2F52010: "f2fs",
    0x01021994: "tmpfs",
    0x794C7630: "overlayfs",
}
_TELLS_ERRORS = (5, 8)  # the kernel since which syncfs tells that something could not be written
_STATFS_SIZE = 512  # more than any struct statfs has; it begins with the type


def can_sync_all(fd: int) -> bool:
    """Whether `sync_all` is there for the file system of an open file."""
    calls = _calls()
    return calls is not None and calls[1](fd) in _TRUSTED


def sync_all(fd: int) -> None:
    """Make everything durable that was written to an open file's file system. Raises OSError."""
    calls = _calls()
    if calls is None:
        raise NotImplementedError("ask can_sync_all first")
    calls[0](fd)


@cache
def _calls() -> tuple[Callable[[int], None], Callable[[int], int]] | None:
    """The calls for syncing and for a file system's type; None where they are not there."""
    if sys.platform != "linux" or _kernel() < _TELLS_ERRORS:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs") or not hasattr(libc, "fstatfs"):
        return None

    def sync(fd: int) -> None:
        if libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def kind(fd: int) -> int:
        buffer = (ctypes.c_ulong * (_STATFS_SIZE // ctypes.sizeof(ctypes.c_ulong)))()
        return int(buffer[0]) if libc.fstatfs(fd, ctypes.byref(buffer)) == 0 else 0

    return sync, kind


def _kernel() -> tuple[int, ...]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(each for each in minor if each.isdigit()) or 0)
