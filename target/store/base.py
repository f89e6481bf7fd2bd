"""What a store is: buckets of objects, read at any offset, written whole or not at all.

It knows nothing of S3's wire, of ETLs or of HTTP. Errors are those of `transom.target.errors`.
`transom.target.store.conformance` is the suite every store must pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from transom.target.errors import ReadOnlyStore, TargetError

MIN_PART_SIZE = 5 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket; times are nanoseconds since the epoch."""

    name: str
    owner: str
    created_ns: int
    acl: str = "private"
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart upload, or of the object it became."""

    number: int
    size: int
    etag: str
    modified_ns: int = 0
    checksums: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a writer says about an object beside its bytes.

    `content` holds content-type, content-encoding, cache-control, content-disposition,
    content-language and expires under those lower-case names; `metadata` holds what follows `x-amz-meta-`.
    """

    content: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""
    acl: str = "private"
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as the index knows it. `etag` has no quotes; `parts` is empty unless it was a multipart upload.

    `checksums` maps "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256" to base64 (a COMPOSITE one ends in "-N").
    """

    bucket: str
    key: str
    size: int
    etag: str
    modified_ns: int
    attributes: Attributes = field(default_factory=Attributes)
    checksums: Mapping[str, str] = field(default_factory=dict)
    checksum_type: str = ""
    parts: Sequence[Part] = ()

    @property
    def content_type(self) -> str:
        """The stored Content-Type, or S3's default."""
        return self.attributes.content.get("content-type", "binary/octet-stream")


@dataclass(frozen=True, slots=True)
class WriteCondition:
    """Conditions under which a write may replace what is there; `etag` without quotes."""

    if_none_match_any: bool = False
    if_match: str | None = None  # an ETag, or "*" for any existing object


@dataclass(frozen=True, slots=True)
class Whole:
    """An object to be stored whose bytes are at hand."""

    key: str
    data: bytes
    attributes: Attributes = field(default_factory=Attributes)


@dataclass(frozen=True, slots=True)
class Listing:
    """One page. `next_after` continues it (pass as `after`), None when the listing is complete.

    `sizes` is "source" where a view lists sizes of source objects, for results whose own aren't known; else "".
    """

    objects: Sequence[ObjectInfo]
    prefixes: Sequence[str]
    next_after: str | None
    sizes: str = ""


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload under way."""

    bucket: str
    key: str
    upload_id: str
    started_ns: int
    attributes: Attributes
    checksum_algorithm: str = ""
    checksum_type: str = ""


@dataclass(frozen=True, slots=True)
class UploadListing:
    """One page of uploads under way, ordered by (key, upload id)."""

    uploads: Sequence[Upload]
    prefixes: Sequence[str]
    next_after: tuple[str, str] | None


class Intake(Protocol):
    """What checks a body while the store writes it."""

    def update(self, chunk: bytes) -> None:
        """Take the next bytes; called in order, from a worker thread."""

    def finish(self, size: int, md5_hex: str) -> Mapping[str, str]:
        """Return the checksums to keep with the object, or raise to refuse it: nothing is stored then."""


class ObjectReader(ABC):
    """An object opened for reading: the version seen at `open`, whatever happens to the key later."""

    info: ObjectInfo

    @property
    @abstractmethod
    def path(self) -> Path | None:
        """A path holding exactly the object's bytes, when one file does (valid until `close`); else None."""

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at `offset`; blocking, callable from any thread. Empty at the end.

        Raises SourceChanged if the bytes can no longer be those that `info` describes.
        """

    def at_once(self, start: int, stop: int) -> bytes | None:  # noqa: ARG002
        """Return the bytes [start, stop), not empty, if that needs no waiting for a disk; else None: use `chunks`."""
        return None

    @abstractmethod
    def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes [start, stop) in chunks, never blocking the event loop on a cold disk.

        Raises SourceChanged rather than end short.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the files; safe to call twice."""


class Store(ABC):
    """Where the bytes rest. All methods may be called from any task of one event loop."""

    @abstractmethod
    async def create_bucket(self, name: str, *, owner: str, acl: str = "private") -> Bucket:
        """Raises BucketExists, with its owner."""

    @abstractmethod
    async def bucket(self, name: str) -> Bucket:
        """Raises NoSuchBucket."""

    @abstractmethod
    async def buckets(self) -> Sequence[Bucket]:
        """All buckets, by name."""

    @abstractmethod
    async def delete_bucket(self, name: str) -> None:
        """Raises NoSuchBucket, BucketNotEmpty. Uploads under way go with it."""

    @abstractmethod
    async def set_bucket_acl(self, name: str, acl: str) -> None:
        """Keep a canned ACL by name."""

    @abstractmethod
    async def head(self, bucket: str, key: str) -> ObjectInfo:
        """Raises NoSuchBucket, NoSuchKey."""

    @abstractmethod
    async def open(self, bucket: str, key: str) -> ObjectReader:
        """Raises NoSuchBucket, NoSuchKey. The caller closes the reader."""

    @abstractmethod
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
        """Store an object whole, durable when this returns; ETag is the MD5 of the bytes.

        An exception out of `body` or `intake` leaves nothing behind and what was there untouched.
        """

    async def put_many(self, bucket: str, objects: Sequence[Whole]) -> Sequence[ObjectInfo | Exception]:
        """Store small objects together, each as `put` does: whole or not at all, durable when this returns.

        Gives for each, in order, what `put` would return or raise; of two with one key the later stays. Raises
        NoSuchBucket, ReadOnlyStore. A store that can make many durable at the price of one overrides it.
        """
        await self.bucket(bucket)
        stored: list[ObjectInfo | Exception] = []
        for each in objects:
            try:
                stored.append(await self.put(bucket, each.key, _body(each.data), each.attributes))
            except ReadOnlyStore:
                raise
            except (TargetError, OSError) as error:
                stored.append(error)
        return stored

    @abstractmethod
    async def update(
        self, bucket: str, key: str, *, tags: Mapping[str, str] | None = None, acl: str | None = None
    ) -> ObjectInfo:
        """Replace an object's tags, its ACL or both; all else stays, ETag and mtime too. Raises NoSuchKey."""

    @abstractmethod
    async def delete(self, bucket: str, key: str, *, condition: WriteCondition | None = None) -> bool:
        """Remove an object; False if there was none. Raises NoSuchBucket."""

    @abstractmethod
    async def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """Keys above `after` in UTF-8 byte order, rolled up at `delimiter`; `limit` counts keys and prefixes.

        A common prefix that `after` already lies in or equals is not listed again.
        """

    # --- multipart ----------------------------------------------------------------------------

    @abstractmethod
    async def create_upload(
        self, bucket: str, key: str, attributes: Attributes, *, checksum_algorithm: str = "", checksum_type: str = ""
    ) -> Upload:
        """Raises NoSuchBucket."""

    @abstractmethod
    async def upload(self, bucket: str, key: str, upload_id: str) -> Upload:
        """Raises NoSuchUpload."""

    @abstractmethod
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
        """Store a part, replacing one of the same number. Raises NoSuchUpload."""

    @abstractmethod
    async def parts(
        self, bucket: str, key: str, upload_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[Part]:
        """Parts above number `after`, at most `limit`. Raises NoSuchUpload."""

    @abstractmethod
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
        """Make the object of the named (number, etag) parts. Raises InvalidPart, InvalidPartOrder, EntityTooSmall.

        Completing the same upload again with the same parts returns the object it made.
        """

    @abstractmethod
    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        """Raises NoSuchUpload."""

    @abstractmethod
    async def uploads(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, str] = ("", ""),
        limit: int = 1000,
    ) -> UploadListing:
        """Uploads under way above (key, upload id) `after`; an `after` with an empty id skips that whole key."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what is under way and let go of files and threads."""


async def _body(data: bytes) -> AsyncIterator[bytes]:
    yield data
