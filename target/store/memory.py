"""A store in memory: the local store's twin for tests, and a short reading of what a store is.

Nothing outlives the process; bodies are held whole.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transom.target.errors import BucketExists, BucketNotEmpty, NoSuchBucket, NoSuchKey, NoSuchUpload
from transom.target.store.base import (
    MIN_PART_SIZE,
    Attributes,
    Bucket,
    Intake,
    Listing,
    ObjectInfo,
    ObjectReader,
    Part,
    Store,
    Upload,
    UploadListing,
    WriteCondition,
)
from transom.target.store.listing import Page, roll_up
from transom.target.store.rules import check_condition, choose_parts, multipart_etag, updated

CHUNK = 1024 * 1024


class MemoryReader(ObjectReader):
    """Reads bytes that nobody changes."""

    def __init__(self, info: ObjectInfo, data: bytes) -> None:
        self.info = info
        self._data = data

    @property
    def path(self) -> Path | None:
        """None: there is no file."""
        return None

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at `offset`."""
        return self._data[offset : offset + length]

    async def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes [start, stop)."""
        stop = len(self._data) if stop is None else min(stop, len(self._data))
        for at in range(start, stop, CHUNK):
            yield self._data[at : min(at + CHUNK, stop)]

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class _Upload:
    upload: Upload
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class _Bucket:
    bucket: Bucket
    objects: dict[str, tuple[ObjectInfo, bytes]] = field(default_factory=dict)
    uploads: dict[tuple[str, str], _Upload] = field(default_factory=dict)
    completed: dict[tuple[str, str], tuple[list[tuple[int, str]], ObjectInfo]] = field(default_factory=dict)


class MemoryStore(Store):
    """Buckets in a dictionary."""

    def __init__(self, *, min_part_size: int = MIN_PART_SIZE) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._min_part_size = min_part_size
        self._ids = itertools.count(1)

    def _of(self, name: str) -> _Bucket:
        if name not in self._buckets:
            raise NoSuchBucket(f"There is no bucket {name}.")
        return self._buckets[name]

    # --- buckets ------------------------------------------------------------------------------

    async def create_bucket(self, name: str, *, owner: str, acl: str = "private") -> Bucket:
        """Raises BucketExists, with its owner."""
        if name in self._buckets:
            raise BucketExists(f"There is a bucket {name}.", owner=self._buckets[name].bucket.owner)
        self._buckets[name] = _Bucket(Bucket(name, owner, time.time_ns(), acl))
        return self._buckets[name].bucket

    async def bucket(self, name: str) -> Bucket:
        """Raises NoSuchBucket."""
        return self._of(name).bucket

    async def buckets(self) -> Sequence[Bucket]:
        """All buckets, by name."""
        return [self._buckets[name].bucket for name in sorted(self._buckets)]

    async def delete_bucket(self, name: str) -> None:
        """Raises NoSuchBucket, BucketNotEmpty."""
        if self._of(name).objects:
            raise BucketNotEmpty(f"The bucket {name} is not empty.")
        del self._buckets[name]

    async def set_bucket_acl(self, name: str, acl: str) -> None:
        """Raises NoSuchBucket."""
        held = self._of(name)
        held.bucket = replace(held.bucket, acl=acl)

    # --- objects ------------------------------------------------------------------------------

    def _object(self, bucket: str, key: str) -> tuple[ObjectInfo, bytes]:
        found = self._of(bucket).objects.get(key)
        if found is None:
            raise NoSuchKey(f"There is no object {key}.")
        return found

    def _place(self, info: ObjectInfo, data: bytes, condition: WriteCondition | None) -> ObjectInfo:
        objects = self._of(info.bucket).objects
        check_condition(condition, objects[info.key][0].etag if info.key in objects else None)
        objects[info.key] = (info, data)
        return info

    async def head(self, bucket: str, key: str) -> ObjectInfo:
        """Raises NoSuchBucket, NoSuchKey."""
        return self._object(bucket, key)[0]

    async def open(self, bucket: str, key: str) -> MemoryReader:
        """Raises NoSuchBucket, NoSuchKey."""
        return MemoryReader(*self._object(bucket, key))

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
        """Store an object whole."""
        self._of(bucket)
        data, md5_hex, checksums = await _take(body, intake)
        kind = "FULL_OBJECT" if checksums else ""
        info = ObjectInfo(bucket, key, len(data), md5_hex, time.time_ns(), attributes, checksums, kind)
        return self._place(info, data, condition)

    async def update(
        self, bucket: str, key: str, *, tags: Mapping[str, str] | None = None, acl: str | None = None
    ) -> ObjectInfo:
        """Raises NoSuchBucket, NoSuchKey."""
        info, data = self._object(bucket, key)
        return self._place(replace(info, attributes=updated(info.attributes, tags, acl)), data, None)

    async def delete(self, bucket: str, key: str, *, condition: WriteCondition | None = None) -> bool:
        """Raises NoSuchBucket, and what conditions raise."""
        objects = self._of(bucket).objects
        check_condition(condition, objects[key][0].etag if key in objects else None)
        return objects.pop(key, None) is not None

    async def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """One page. Raises NoSuchBucket."""
        rows = sorted((key.encode(), "", info) for key, (info, _) in self._of(bucket).objects.items())
        page = Page(prefix.encode(), delimiter.encode(), (after.encode(), ""), limit)
        entries, following = roll_up(_Seeker(rows), page)
        objects = [entry[2] for entry in entries if isinstance(entry, tuple)]
        return Listing(objects, _prefixes(entries), following[0].decode() if following else None)

    # --- multipart ----------------------------------------------------------------------------

    def _upload(self, bucket: str, key: str, upload_id: str) -> _Upload:
        found = self._of(bucket).uploads.get((key, upload_id))
        if found is None:
            raise NoSuchUpload("The upload does not exist; it may have been completed or aborted.")
        return found

    async def create_upload(
        self, bucket: str, key: str, attributes: Attributes, *, checksum_algorithm: str = "", checksum_type: str = ""
    ) -> Upload:
        """Raises NoSuchBucket."""
        upload_id = f"{next(self._ids):016x}"
        upload = Upload(bucket, key, upload_id, time.time_ns(), attributes, checksum_algorithm, checksum_type)
        self._of(bucket).uploads[key, upload_id] = _Upload(upload)
        return upload

    async def upload(self, bucket: str, key: str, upload_id: str) -> Upload:
        """Raises NoSuchBucket, NoSuchUpload."""
        return self._upload(bucket, key, upload_id).upload

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
        """Raises NoSuchBucket, NoSuchUpload."""
        self._upload(bucket, key, upload_id)
        data, md5_hex, checksums = await _take(body, intake)
        part = Part(number, len(data), md5_hex, time.time_ns(), checksums)
        self._upload(bucket, key, upload_id).parts[number] = (part, data)
        return part

    async def parts(
        self, bucket: str, key: str, upload_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[Part]:
        """Raises NoSuchBucket, NoSuchUpload."""
        parts = self._upload(bucket, key, upload_id).parts
        return [parts[number][0] for number in sorted(parts) if number > after][: max(limit, 0)]

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
        """Make the object; the same call again returns what it made."""
        held = self._of(bucket)
        asked = [(number, etag.strip('"')) for number, etag in parts]
        before = held.completed.get((key, upload_id))
        if before is not None and before[0] == asked:
            return before[1]
        under_way = self._upload(bucket, key, upload_id)
        have = {number: part for number, (part, _) in under_way.parts.items()}
        chosen = choose_parts(parts, have, self._min_part_size)
        data = b"".join(under_way.parts[part.number][1] for part in chosen)
        info = ObjectInfo(
            *(bucket, key, len(data), multipart_etag(part.etag for part in chosen), time.time_ns()),
            attributes=under_way.upload.attributes,
            checksums=dict(checksums or {}),
            checksum_type=checksum_type,
            parts=chosen,
        )
        made = self._place(info, data, condition)
        del held.uploads[key, upload_id]
        held.completed[key, upload_id] = (asked, made)
        return made

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        """Raises NoSuchBucket, NoSuchUpload."""
        self._upload(bucket, key, upload_id)
        del self._of(bucket).uploads[key, upload_id]

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
        held = self._of(bucket).uploads
        rows = sorted((key.encode(), id_, under_way.upload) for (key, id_), under_way in held.items())
        page = Page(prefix.encode(), delimiter.encode(), (after[0].encode(), after[1]), limit, several=True)
        entries, following = roll_up(_Seeker(rows), page)
        found = [entry[2] for entry in entries if isinstance(entry, tuple)]
        return UploadListing(found, _prefixes(entries), (following[0].decode(), following[1]) if following else None)

    async def close(self) -> None:
        """Nothing is held."""


class _Seeker:
    """Rows from a position on, in a sorted list."""

    def __init__(self, rows: list[tuple[bytes, str, Any]]) -> None:
        self._rows = rows

    def __call__(self, key: bytes, id_: str) -> Iterator[tuple[Any, ...]]:
        at = bisect_left(self._rows, (key, id_), key=lambda row: row[:2])
        return itertools.islice(iter(self._rows), at, None)


async def _take(body: AsyncIterator[bytes], intake: Intake | None) -> tuple[bytes, str, Mapping[str, str]]:
    """The whole body, its MD5, and the checksums to keep."""
    taken = []
    async for chunk in body:
        taken.append(chunk)
        if intake is not None:
            intake.update(chunk)
    data = b"".join(taken)
    md5_hex = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return data, md5_hex, intake.finish(len(data), md5_hex) if intake is not None else {}


def _prefixes(entries: Sequence[tuple[Any, ...] | bytes]) -> list[str]:
    return [entry.decode() for entry in entries if isinstance(entry, bytes)]
