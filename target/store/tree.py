"""Walks a directory tree in key order, never through a symlink and never out of the tree.

A directory sorts as its name with a slash, so that walking it depth first gives keys in byte order. Names that
are not UTF-8, and keys longer than S3's, are left out. It knows nothing of objects.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from transom.target.store.rules import common_prefix

MAX_KEY_BYTES = 1024
REMEMBER_ABOVE = 1000  # entries: a smaller directory is read again sooner than it is looked up
REMEMBER_DIRECTORIES = 16
SETTLED_NS = 2 * 10**9  # a directory changed less long ago may change again without its time showing it
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Found = tuple[bytes, os.stat_result]


def split_key(key: str) -> list[str] | None:
    """The path components that a key names; None when it can name no file."""
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        return None
    names = key.split("/")
    if b"\0" in encoded or any(name in ("", ".", "..") for name in names):
        return None
    return names


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of a tree to walk: keys from `start` on, that begin with `prefix`."""

    start: bytes
    prefix: bytes
    delimiter: bytes

    def wants(self, key: bytes, *, directory: bool) -> bool:
        """Whether the file is, or the directory may hold, a key of the span."""
        if not directory:
            return key >= self.start and key.startswith(self.prefix)
        return (key >= self.start or self.start.startswith(key)) and (
            key.startswith(self.prefix) or self.prefix.startswith(key)
        )


class Tree:
    """A directory and all below it."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._lock = threading.Lock()
        self._remembered: OrderedDict[tuple[int, int], tuple[int, list[tuple[bytes, bool]]]] = OrderedDict()

    def open(self, names: list[str]) -> int:
        """A descriptor for reading the regular file at `names`. Raises OSError, FileNotFoundError for no file."""
        with self._parent(names) as (parent, name):
            fd = os.open(name, _FILE, dir_fd=parent)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        raise FileNotFoundError(name)

    def stat(self, names: list[str]) -> os.stat_result:
        """The status of the regular file at `names`. Raises OSError, FileNotFoundError for no file."""
        with self._parent(names) as (parent, name):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(name)
        return status

    @contextlib.contextmanager
    def _parent(self, names: list[str]) -> Iterator[tuple[int, str]]:
        """The open directory that holds the last name, reached one component at a time."""
        at = self._open_root()
        try:
            for name in names[:-1]:
                below = os.open(name, _DIRECTORY, dir_fd=at)
                os.close(at)
                at = below
            yield at, names[-1]
        finally:
            os.close(at)

    def _open_root(self) -> int:
        return os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def walk(self, span: Span) -> Generator[Found | bytes, None, None]:
        """Files of the span in key order; with a slash for delimiter, a directory that rolls up as its key alone."""
        fd = self._open_root()
        try:
            yield from self._below(fd, b"", span)
        finally:
            os.close(fd)

    def roll_up(self, span: Span) -> Generator[Found | bytes, None, None]:
        """Files of the span and common prefixes (as bytes), in order, each once; close it when done."""
        last = None
        with contextlib.closing(self.walk(span)) as found:
            for entry in found:
                key = entry if isinstance(entry, bytes) else entry[0]
                rolled = common_prefix(key, span.prefix, span.delimiter)
                if rolled is None:
                    yield entry
                elif rolled != last:
                    last = rolled
                    yield rolled

    def _below(self, fd: int, base: bytes, span: Span) -> Iterator[Found | bytes]:
        for name, directory in self._names(fd):
            key = base + name
            if len(key) > MAX_KEY_BYTES or not span.wants(key, directory=directory):
                continue
            if directory:
                yield from self._directory(fd, name, key, span)
            else:
                with contextlib.suppress(OSError):  # gone since it was seen
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield key, status

    def _directory(self, parent: int, name: bytes, key: bytes, span: Span) -> Iterator[Found | bytes]:
        try:
            fd = os.open(name[:-1], _DIRECTORY, dir_fd=parent)
        except OSError:  # gone, replaced by a link, or not to be read: no keys
            return
        try:
            if span.delimiter != b"/" or common_prefix(key, span.prefix, b"/") is None:
                yield from self._below(fd, key, span)
            elif any(True for _ in self._below(fd, key, Span(b"", b"", b""))):
                yield key
        finally:
            os.close(fd)

    def _names(self, fd: int) -> list[tuple[bytes, bool]]:
        """The names in a directory, those of directories with a slash, sorted; of a large one they are remembered."""
        status = os.fstat(fd)
        which = (status.st_dev, status.st_ino)
        with self._lock:
            remembered = self._remembered.get(which)
            if remembered is not None and remembered[0] == status.st_mtime_ns:
                self._remembered.move_to_end(which)
                return remembered[1]
        names = sorted(_scan(fd))
        if len(names) > REMEMBER_ABOVE and status.st_mtime_ns < time.time_ns() - SETTLED_NS:
            with self._lock:
                self._remembered[which] = (status.st_mtime_ns, names)
                while len(self._remembered) > REMEMBER_DIRECTORIES:
                    self._remembered.popitem(last=False)
        return names


def _scan(fd: int) -> Iterator[tuple[bytes, bool]]:
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                name = entry.name.encode()
            except UnicodeEncodeError:  # bytes that are not UTF-8
                continue
            if entry.is_dir(follow_symlinks=False):
                yield name + b"/", True
            elif entry.is_file(follow_symlinks=False):
                yield name, False
