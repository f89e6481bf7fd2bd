"""The local store: looks rows up at once, streams bodies through worker threads, and hands changes to the writer.

It knows nothing of S3 or HTTP. Any number of processes may use one data folder.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from transom.cluster.stamp import Stamp
from transom.target.errors import SourceChanged, StoreFull
from transom.target.store.base import (
    MIN_PART_SIZE,
    Attributes,
    Bucket,
    Intake,
    Listing,
    ObjectInfo,
    Part,
    Store,
    Upload,
    UploadListing,
    Whole,
    WriteCondition,
)
from transom.target.store.local import changes, multipart, rows
from transom.target.store.local.blobs import Blob, BlobFolder
from transom.target.store.local.folder_lock import FolderLock
from transom.target.store.local.index import Index
from transom.target.store.local.intake import receive, receive_many
from transom.target.store.local.makers import Maker, sweep_dead
from transom.target.store.local.multipart import UploadName
from transom.target.store.local.reader import LocalReader
from transom.target.store.local.writer import HOUSEKEEPING_S, IndexWriter

T = TypeVar("T")
THREADS = 32
REMEMBERED = 1024  # rows of objects
LOOKUPS = 100  # between a lookup and opening its blob the key may be overwritten: so many times in a row it isn't


class LocalStore(Store):
    """Buckets and objects in one data folder. Make it with `LocalStore.at`."""

    def __init__(
        self, root: Path, lock: FolderLock, *, threads: int, min_part_size: int, housekeeping_s: float = HOUSEKEEPING_S
    ) -> None:
        self._root = root
        self._lock = lock
        self._min_part_size = min_part_size
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="transom-store")
        self._maker = Maker(root)
        self._folder = BlobFolder(root, lock.epoch, self._maker.name)
        self._index = Index(root / "index.sqlite")
        self._objects_changed = Stamp(root / "objects.stamp")
        self._writer = IndexWriter(
            root / "index.sqlite",
            root / "writer.lock",
            self._discard,
            self._objects_changed.renew,
            lambda: self._threads.submit(sweep_dead, root),
            housekeeping_s=housekeeping_s,
        )
        self._rows: dict[tuple[str, str], tuple[Any, ...]] = {}
        self._buckets: dict[str, Bucket] = {}
        self._buckets_changed = Stamp(root / "buckets.stamp")
        self._closed = False

    @classmethod
    def at(
        cls,
        path: Path,
        *,
        threads: int = THREADS,
        min_part_size: int = MIN_PART_SIZE,
        housekeeping_s: float = HOUSEKEEPING_S,
    ) -> LocalStore:
        """Open the data folder at `path`, making or sweeping it first where nobody else uses it; blocks.

        What dead processes left under way is removed by whoever opens or closes the folder, and every `housekeeping_s`.
        """
        root = path.absolute()
        lock = FolderLock(root)
        try:
            return cls(root, lock, threads=threads, min_part_size=min_part_size, housekeeping_s=housekeeping_s)
        except BaseException:
            lock.release()
            raise

    def _discard(self, blob_ids: Sequence[bytes], then: Callable[[], None]) -> None:
        """Unlink blobs in a thread: a big file's blocks take their time."""

        def work() -> None:
            self._folder.discard(blob_ids)
            then()

        self._threads.submit(work)

    # --- buckets ------------------------------------------------------------------------------

    async def create_bucket(self, name: str, *, owner: str, acl: str = "private") -> Bucket:
        """Raises BucketExists, with its owner."""
        bucket = await self._writer.apply(changes.CreateBucket(name, owner, acl))
        self._buckets_changed.renew()
        return bucket

    async def bucket(self, name: str) -> Bucket:
        """Raises NoSuchBucket."""
        if not self._buckets_changed.fresh():
            self._buckets_changed.note()
            self._buckets.clear()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = self._index.bucket(name)
        return bucket

    async def buckets(self) -> Sequence[Bucket]:
        """All buckets, by name."""
        return self._index.buckets()

    async def delete_bucket(self, name: str) -> None:
        """Raises NoSuchBucket, BucketNotEmpty."""
        await self._writer.apply(changes.DeleteBucket(name))
        self._buckets_changed.renew()

    async def set_bucket_acl(self, name: str, acl: str) -> None:
        """Raises NoSuchBucket."""
        await self._writer.apply(changes.SetBucketAcl(name, acl))
        self._buckets_changed.renew()

    # --- objects ------------------------------------------------------------------------------

    async def head(self, bucket: str, key: str) -> ObjectInfo:
        """Raises NoSuchBucket, NoSuchKey."""
        return rows.to_info(bucket, key, self._object_row(bucket, key))

    def _object_row(self, bucket: str, key: str) -> tuple[Any, ...]:
        """An object's row, remembered until any process commits something, for half a second at most.

        The bound is for a process killed between its commit, which nobody acknowledged then, and telling the others.
        Raises NoSuchBucket, NoSuchKey.
        """
        if not self._objects_changed.fresh():
            self._objects_changed.note()
            self._rows.clear()
        row = self._rows.get((bucket, key))
        if row is None:
            row = self._index.object_row(bucket, key)
            if row[7] is None:  # those of many parts are large
                if len(self._rows) >= REMEMBERED:
                    self._rows.clear()
                self._rows[bucket, key] = row
        return row

    async def open(self, bucket: str, key: str) -> LocalReader:
        """Raises NoSuchBucket, NoSuchKey."""
        gone: FileNotFoundError | None = None
        for _ in range(LOOKUPS):
            row = self._object_row(bucket, key)
            pieces = list(rows.piece_blobs(row[7])) if row[7] is not None else [(row[0], row[6])]
            info = rows.to_info(bucket, key, row)
            eager = len(pieces) <= changes.EAGER_PIECES
            try:
                return LocalReader(info, pieces, self._folder, self._threads, eager=eager)
            except FileNotFoundError as error:
                gone = error
                self._rows.clear()
        raise SourceChanged("The object is being replaced all the time, or its data is lost.") from gone

    async def put(
        self,
        bucket: str,
        key: str,
        body: AsyncIterator[bytes],
        attributes: Attributes,
        *,
        intake: Intake | None = None,
        condition: WriteCondition | None = None,
    ) -> ObjectInfo:
        """Store an object whole; durable when this returns. Raises StoreFull beside what conditions raise."""
        self._index.bucket(bucket)
        blob = await receive(body, self._folder, self._threads, intake)
        return await self._writer.apply(changes.PutObject(bucket, key, blob, attributes, condition), adopts=[blob.id])

    async def put_many(self, bucket: str, objects: Sequence[Whole]) -> Sequence[ObjectInfo | Exception]:
        """As many `put`s, for one thread hop, one wait for the disk and one commit. Raises NoSuchBucket."""
        self._index.bucket(bucket)
        if not objects:
            return []
        blobs = await receive_many([each.data for each in objects], self._folder, self._threads)
        pairs = [(each, blob) for each, blob in zip(objects, blobs, strict=True) if isinstance(blob, Blob)]
        if not pairs:
            return [blob for blob in blobs if isinstance(blob, Exception)]
        made: Iterator[ObjectInfo | Exception]
        try:
            change = changes.PutObjects(bucket, pairs)
            made = iter(await self._writer.apply(change, adopts=[blob.id for _, blob in pairs]))
        except StoreFull as full:
            made = itertools.repeat(full)
        return [next(made) if isinstance(blob, Blob) else blob for blob in blobs]

    async def update(
        self, bucket: str, key: str, *, tags: Mapping[str, str] | None = None, acl: str | None = None
    ) -> ObjectInfo:
        """Raises NoSuchBucket, NoSuchKey."""
        return await self._writer.apply(changes.UpdateObject(bucket, key, tags, acl))

    async def delete(self, bucket: str, key: str, *, condition: WriteCondition | None = None) -> bool:
        """Raises NoSuchBucket, and what conditions raise."""
        return await self._writer.apply(changes.DeleteObject(bucket, key, condition))

    async def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """One page; the objects' `parts` are left out. Raises NoSuchBucket."""
        return await self._in_thread(lambda: self._index.list_objects(bucket, prefix, delimiter, after, limit))

    # --- multipart ----------------------------------------------------------------------------

    async def create_upload(
        self, bucket: str, key: str, attributes: Attributes, *, checksum_algorithm: str = "", checksum_type: str = ""
    ) -> Upload:
        """Raises NoSuchBucket."""
        change = multipart.CreateUpload(bucket, key, attributes, checksum_algorithm, checksum_type)
        return await self._writer.apply(change)

    async def upload(self, bucket: str, key: str, upload_id: str) -> Upload:
        """Raises NoSuchBucket, NoSuchUpload."""
        return self._index.upload(bucket, key, upload_id)[1]

    async def put_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        body: AsyncIterator[bytes],
        *,
        intake: Intake | None = None,
    ) -> Part:
        """Raises NoSuchBucket, NoSuchUpload, StoreFull."""
        self._index.upload(bucket, key, upload_id)
        blob = await receive(body, self._folder, self._threads, intake)
        name = UploadName(bucket, key, upload_id)
        return await self._writer.apply(multipart.PutPart(name, number, blob), adopts=[blob.id])

    async def parts(
        self, bucket: str, key: str, upload_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[Part]:
        """Raises NoSuchBucket, NoSuchUpload."""
        return await self._in_thread(lambda: self._index.parts(bucket, key, upload_id, after, limit))

    async def complete_upload(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        parts: Sequence[tuple[int, str]],
        *,
        checksums: Mapping[str, str] | None = None,
        checksum_type: str = "",
        condition: WriteCondition | None = None,
    ) -> ObjectInfo:
        """Make the object without copying a byte; for a day the same call again returns what it made."""
        name = UploadName(bucket, key, upload_id)
        change = multipart.CompleteUpload(name, parts, checksums or {}, checksum_type, condition, self._min_part_size)
        return await self._writer.apply(change)

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        """Raises NoSuchBucket, NoSuchUpload."""
        await self._writer.apply(multipart.AbortUpload(UploadName(bucket, key, upload_id)))

    async def uploads(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, str] = ("", ""),
        limit: int = 1000,
    ) -> UploadListing:
        """One page of uploads under way. Raises NoSuchBucket."""
        return await self._in_thread(lambda: self._index.uploads(bucket, prefix, delimiter, after, limit))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def close(self) -> None:
        """Finish what is under way and let go of the folder; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        self._buckets_changed.close()
        self._writer.close()
        self._objects_changed.close()
        self._threads.shutdown()
        self._index.close()
        self._maker.release()
        sweep_dead(self._root)
        self._lock.release()
