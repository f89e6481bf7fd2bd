"""A store that refuses all writes: what read-only stores have in common.

It knows nothing of where the bytes come from.
"""
# ruff: noqa: ARG002 - a refusal doesn't look at what it was given

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NoReturn

from transom.target.errors import NoSuchUpload, ReadOnlyStore
from transom.target.store.base import (
    Attributes,
    Bucket,
    Intake,
    ObjectInfo,
    Part,
    Store,
    Upload,
    UploadListing,
    Whole,
    WriteCondition,
)


class RefusingStore(Store):
    """A subclass has buckets and reads objects; every write raises ReadOnlyStore, and there are no uploads."""

    @abstractmethod
    def _check_bucket(self, name: str) -> None:
        """Raises NoSuchBucket."""

    def _refuse(self, bucket: str) -> NoReturn:
        self._check_bucket(bucket)
        raise ReadOnlyStore(f"The bucket {bucket} takes no writes.")

    async def create_bucket(self, name: str, *, owner: str, acl: str = "private") -> Bucket:
        """Raises ReadOnlyStore."""
        raise ReadOnlyStore("This store takes no new buckets.")

    async def delete_bucket(self, name: str) -> None:
        """Raises ReadOnlyStore."""
        self._refuse(name)

    async def set_bucket_acl(self, name: str, acl: str) -> None:
        """Raises ReadOnlyStore."""
        self._refuse(name)

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
        """Raises ReadOnlyStore."""
        self._refuse(bucket)

    async def put_many(self, bucket: str, objects: Sequence[Whole]) -> Sequence[ObjectInfo | Exception]:
        """Raises ReadOnlyStore."""
        self._refuse(bucket)

    async def update(
        self, bucket: str, key: str, *, tags: Mapping[str, str] | None = None, acl: str | None = None
    ) -> ObjectInfo:
        """Raises ReadOnlyStore."""
        self._refuse(bucket)

    async def delete(self, bucket: str, key: str, *, condition: WriteCondition | None = None) -> bool:
        """Raises ReadOnlyStore."""
        self._refuse(bucket)

    # --- multipart: none ----------------------------------------------------------------------

    async def create_upload(
        self, bucket: str, key: str, attributes: Attributes, *, checksum_algorithm: str = "", checksum_type: str = ""
    ) -> Upload:
        """Raises ReadOnlyStore."""
        self._refuse(bucket)

    async def upload(self, bucket: str, key: str, upload_id: str) -> Upload:
        """Raises NoSuchUpload."""
        self._check_bucket(bucket)
        raise NoSuchUpload("The bucket takes no uploads.")

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
        """Raises ReadOnlyStore."""
        self._refuse(bucket)

    async def parts(
        self, bucket: str, key: str, upload_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[Part]:
        """Raises NoSuchUpload."""
        self._check_bucket(bucket)
        raise NoSuchUpload("The bucket takes no uploads.")

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
        """Raises ReadOnlyStore."""
        self._refuse(bucket)

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        """Raises ReadOnlyStore."""
        self._refuse(bucket)

    async def uploads(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, str] = ("", ""),
        limit: int = 1000,
    ) -> UploadListing:
        """There never are any."""
        self._check_bucket(bucket)
        return UploadListing([], [], None)
