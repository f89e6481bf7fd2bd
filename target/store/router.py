"""One store made of several: read-only folder buckets by name, all other buckets in a default store.

It knows nothing of how any of them keeps its bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from transom.target.errors import BucketExists
from transom.target.store.base import (
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
    Whole,
    WriteCondition,
)


class StoreRouter(Store):
    """Sends each call to the store of its bucket; a folder hides a bucket of its name in the default store."""

    def __init__(self, default: Store, folders: Mapping[str, Store]) -> None:
        self._default = default
        self._folders = dict(folders)

    def _of(self, bucket: str) -> Store:
        return self._folders.get(bucket, self._default)

    # --- buckets ------------------------------------------------------------------------------

    async def create_bucket(self, name: str, *, owner: str, acl: str = "private") -> Bucket:
        """Raises BucketExists, with its owner."""
        if name in self._folders:
            there = await self._folders[name].bucket(name)
            raise BucketExists(f"The bucket {name} is a folder.", owner=there.owner)
        return await self._default.create_bucket(name, owner=owner, acl=acl)

    async def bucket(self, name: str) -> Bucket:
        """Raises NoSuchBucket."""
        return await self._of(name).bucket(name)

    async def buckets(self) -> Sequence[Bucket]:
        """All buckets of all stores, by name."""
        found = {bucket.name: bucket for bucket in await self._default.buckets()}
        for name, folder in self._folders.items():
            found[name] = await folder.bucket(name)
        return [found[name] for name in sorted(found)]

    async def delete_bucket(self, name: str) -> None:
        """Raises NoSuchBucket, BucketNotEmpty, ReadOnlyStore."""
        await self._of(name).delete_bucket(name)

    async def set_bucket_acl(self, name: str, acl: str) -> None:
        """Raises NoSuchBucket, ReadOnlyStore."""
        await self._of(name).set_bucket_acl(name, acl)

    # --- objects ------------------------------------------------------------------------------

    async def head(self, bucket: str, key: str) -> ObjectInfo:
        """Raises NoSuchBucket, NoSuchKey."""
        return await self._of(bucket).head(bucket, key)

    async def open(self, bucket: str, key: str) -> ObjectReader:
        """Raises NoSuchBucket, NoSuchKey."""
        return await self._of(bucket).open(bucket, key)

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
        """As the bucket's store does; raises ReadOnlyStore for a folder."""
        return await self._of(bucket).put(bucket, key, body, attributes, intake=intake, condition=condition)

    async def put_many(self, bucket: str, objects: Sequence[Whole]) -> Sequence[ObjectInfo | Exception]:
        """As the bucket's store does; raises ReadOnlyStore for a folder."""
        return await self._of(bucket).put_many(bucket, objects)

    async def update(
        self, bucket: str, key: str, *, tags: Mapping[str, str] | None = None, acl: str | None = None
    ) -> ObjectInfo:
        """Raises NoSuchBucket, NoSuchKey, ReadOnlyStore."""
        return await self._of(bucket).update(bucket, key, tags=tags, acl=acl)

    async def delete(self, bucket: str, key: str, *, condition: WriteCondition | None = None) -> bool:
        """Raises NoSuchBucket, ReadOnlyStore, and what conditions raise."""
        return await self._of(bucket).delete(bucket, key, condition=condition)

    async def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """Raises NoSuchBucket."""
        store = self._of(bucket)
        return await store.list_objects(bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)

    # --- multipart ----------------------------------------------------------------------------

    async def create_upload(
        self, bucket: str, key: str, attributes: Attributes, *, checksum_algorithm: str = "", checksum_type: str = ""
    ) -> Upload:
        """Raises NoSuchBucket, ReadOnlyStore."""
        return await self._of(bucket).create_upload(
            bucket, key, attributes, checksum_algorithm=checksum_algorithm, checksum_type=checksum_type
        )

    async def upload(self, bucket: str, key: str, upload_id: str) -> Upload:
        """Raises NoSuchBucket, NoSuchUpload."""
        return await self._of(bucket).upload(bucket, key, upload_id)

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
        """Raises NoSuchBucket, NoSuchUpload, ReadOnlyStore."""
        return await self._of(bucket).put_part(bucket, key, upload_id, number, body, intake=intake)

    async def parts(
        self, bucket: str, key: str, upload_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[Part]:
        """Raises NoSuchBucket, NoSuchUpload."""
        return await self._of(bucket).parts(bucket, key, upload_id, after=after, limit=limit)

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
        """As the bucket's store does; raises ReadOnlyStore for a folder."""
        return await self._of(bucket).complete_upload(
            bucket, key, upload_id, parts, checksums=checksums, checksum_type=checksum_type, condition=condition
        )

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        """Raises NoSuchBucket, NoSuchUpload, ReadOnlyStore."""
        await self._of(bucket).abort_upload(bucket, key, upload_id)

    async def uploads(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, str] = ("", ""),
        limit: int = 1000,
    ) -> UploadListing:
        """Raises NoSuchBucket."""
        store = self._of(bucket)
        return await store.uploads(bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)

    async def close(self) -> None:
        """Close every store, also when one of them fails to."""
        try:
            for folder in self._folders.values():
                await folder.close()
        finally:
            await self._default.close()
