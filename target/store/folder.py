"""The folder store: an existing directory served as one read-only bucket, nothing copied.

It knows nothing of S3 or HTTP. A key is a relative POSIX path of a regular file.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import mimetypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from transom.target.errors import NoSuchBucket, NoSuchKey, SourceChanged
from transom.target.store.base import (
    Attributes,
    Bucket,
    Listing,
    ObjectInfo,
)
from transom.target.store.files import FileReader, OpenFile, whole
from transom.target.store.listing import Page, cut
from transom.target.store.refusing import RefusingStore
from transom.target.store.tree import Span, Tree, split_key

T = TypeVar("T")
THREADS = 16
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO)
_ENCODED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
    "br": "application/x-brotli",
}


class FolderReader(FileReader):
    """Reads one file, and after each read makes sure that it still is the file that was opened."""

    def __init__(self, info: ObjectInfo, file: OpenFile, threads: Executor) -> None:
        super().__init__(threads)
        self.info = info
        self._file = file

    @property
    def path(self) -> Path | None:
        """None: nobody vouches that the file stays as it is, so a caller that needs one makes a copy."""
        return None

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at `offset`."""
        length = max(min(length, self.info.size - offset), 0)
        return self._read_ahead(offset, length)

    def _read_cached(self, offset: int, length: int) -> bytes | None:
        data = self._file.read_cached(length, offset)
        self._check()
        return data

    def _read_ahead(self, offset: int, length: int) -> bytes:
        data = self._file.read(length, offset)
        self._check()
        return whole(data, length, "The file")

    def _check(self) -> None:
        if etag_of(self._file.stat()) != self.info.etag:
            raise SourceChanged("The file changed while it was read.")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def etag_of(status: os.stat_result) -> str:
    """A file's identity as an ETag: its suffix tells clients that it is not an MD5 of the bytes."""
    identity = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    return hashlib.md5(identity.encode(), usedforsecurity=False).hexdigest() + "-1"


class FolderStore(RefusingStore):
    """A directory as the bucket `name`; every write raises ReadOnlyStore."""

    def __init__(self, name: str, path: Path, owner: str, *, threads: int = THREADS) -> None:
        status = path.stat()
        if not path.is_dir():
            raise NotADirectoryError(f"{path} is not a directory")
        self._bucket = Bucket(name, owner, status.st_ctime_ns, read_only=True)
        self._tree = Tree(path.absolute())
        self._types = mimetypes.MimeTypes()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"transom-folder-{name}")

    def _check_bucket(self, name: str) -> None:
        if name != self._bucket.name:
            raise NoSuchBucket(f"There is no bucket {name}.")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    # --- buckets ------------------------------------------------------------------------------

    async def bucket(self, name: str) -> Bucket:
        """Raises NoSuchBucket."""
        self._check_bucket(name)
        return self._bucket

    async def buckets(self) -> Sequence[Bucket]:
        """The only bucket."""
        return [self._bucket]

    # --- objects ------------------------------------------------------------------------------

    def _info(self, key: str, status: os.stat_result) -> ObjectInfo:
        attributes = Attributes({"content-type": self._content_type(key)}, owner=self._bucket.owner)
        return ObjectInfo(
            self._bucket.name, key, status.st_size, etag_of(status), status.st_mtime_ns, attributes=attributes
        )

    def _content_type(self, key: str) -> str:
        """By the name alone. `a.txt.gz` is gzip data, not text that a client should unpack."""
        kind, encoding = self._types.guess_type(f"/{key}", strict=False)
        if encoding is not None:
            kind = _ENCODED.get(encoding)
        return kind or "binary/octet-stream"

    def _named(self, bucket: str, key: str, find: Callable[[list[str]], T]) -> T:
        """What `find` makes of the key's path. Raises NoSuchBucket, NoSuchKey."""
        self._check_bucket(bucket)
        names = split_key(key)
        if names is not None:
            try:
                return find(names)
            except OSError as error:
                if error.errno is not None and error.errno not in _ABSENT:
                    raise
        raise NoSuchKey(f"There is no object {key}.")

    async def head(self, bucket: str, key: str) -> ObjectInfo:
        """Raises NoSuchBucket, NoSuchKey."""
        status = await self._in_thread(lambda: self._named(bucket, key, self._tree.stat))
        return self._info(key, status)

    async def open(self, bucket: str, key: str) -> FolderReader:
        """Raises NoSuchBucket, NoSuchKey."""
        file = OpenFile(await self._in_thread(lambda: self._named(bucket, key, self._tree.open)))
        return FolderReader(self._info(key, file.stat()), file, self._threads)

    async def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """One page, in byte order of the keys. Raises NoSuchBucket."""
        self._check_bucket(bucket)
        page = Page(prefix.encode(), delimiter.encode(), (after.encode(), ""), limit)
        return await self._in_thread(lambda: self._list(page))

    def _list(self, page: Page) -> Listing:
        begin = page.begin()
        if begin is None or page.limit <= 0:
            return Listing([], [], None)
        with contextlib.closing(self._tree.roll_up(Span(begin[0], page.prefix, page.delimiter))) as entries:
            taken, following = cut(entries, page)
        objects = [self._info(entry[0].decode(), entry[1]) for entry in taken if isinstance(entry, tuple)]
        prefixes = [entry.decode() for entry in taken if isinstance(entry, bytes)]
        return Listing(objects, prefixes, following[0].decode() if following else None)

    async def close(self) -> None:
        """Let go of the threads."""
        await asyncio.to_thread(self._threads.shutdown)
