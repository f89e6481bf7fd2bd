"""The changes to buckets and objects, each run inside a transaction of the index writer.

They know nothing of files: a change names the blobs that nothing uses any more, and the writer sees to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transom.target.errors import BucketExists, BucketNotEmpty, NoSuchBucket, NoSuchKey
from transom.target.store.base import Attributes, Bucket, ObjectInfo, Whole, WriteCondition
from transom.target.store.local import rows
from transom.target.store.local.blobs import Blob
from transom.target.store.local.writer import Transaction
from transom.target.store.rules import check_condition, updated

EAGER_PIECES = 64  # a reader opens the files of this many pieces at once; of more, as it comes to them
GRACE_NS = 3600 * 10**9
_PUT_WHOLE = (
    " INTO objects (bucket, key, size, etag, modified_ns, attributes, checksums, checksum_type, blob)"
    " VALUES (?, ?, ?, ?, ?, ?, '', '', ?)"
)
_PUT_NEW, _PUT_OVER = "INSERT OR IGNORE" + _PUT_WHOLE, "INSERT OR REPLACE" + _PUT_WHOLE


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object's row to be; `pieces` instead of `blob` when it was uploaded in parts."""

    size: int
    etag: str
    attributes: str
    checksums: str = ""
    checksum_type: str = ""
    blob: bytes | None = None
    pieces: bytes | None = None
    piece_checksums: str | None = None


def bucket_id(transaction: Transaction, name: str) -> int:
    """The bucket's row. Raises NoSuchBucket."""
    row = transaction.db.execute("SELECT id FROM buckets WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NoSuchBucket(f"There is no bucket {name}.")
    return int(row[0])


def adopt(transaction: Transaction, blob_id: bytes) -> None:
    """Count a blob as used."""
    transaction.db.execute("INSERT INTO blobs (id, due_ns) VALUES (?, NULL)", (blob_id,))


def retire(transaction: Transaction, blob_ids: Iterable[bytes], *, grace_ns: int = 0) -> None:
    """Give blobs up: to be unlinked right after the commit, or, for readers that open as they go, after a grace."""
    ids = list(blob_ids)
    due_ns = transaction.now_ns + grace_ns if grace_ns else 0
    transaction.db.executemany("UPDATE blobs SET due_ns = ? WHERE id = ?", [(due_ns, blob) for blob in ids])
    if not grace_ns:
        transaction.retired.extend(ids)


def _retire_object(transaction: Transaction, blob: bytes | None, pieces: bytes | None) -> None:
    if blob is not None:
        retire(transaction, [blob])
    if pieces is not None:
        ids = [blob_id for _, blob_id in rows.piece_blobs(pieces)]
        retire(transaction, ids, grace_ns=GRACE_NS if len(ids) > EAGER_PIECES else 0)


def place(
    transaction: Transaction, bucket: int, key: bytes, new: NewObject, condition: WriteCondition | None
) -> tuple[Any, ...]:
    """Put an object's row where the condition allows; returns the columns that `rows.to_info` takes."""
    old = transaction.db.execute(
        "SELECT etag, blob, pieces FROM objects WHERE bucket = ? AND key = ?", (bucket, key)
    ).fetchone()
    check_condition(condition, old[0] if old else None)
    transaction.db.execute(
        "INSERT OR REPLACE INTO objects (bucket, key, size, etag, modified_ns, attributes, checksums, checksum_type,"
        " blob, pieces, piece_checksums) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(bucket, key, new.size, new.etag, transaction.now_ns),
            *(new.attributes, new.checksums, new.checksum_type, new.blob, new.pieces, new.piece_checksums),
        ),
    )
    if old:
        _retire_object(transaction, old[1], old[2])
    facts = (new.size, new.etag, transaction.now_ns, new.attributes, new.checksums, new.checksum_type)
    return (*facts, new.blob, new.pieces, new.piece_checksums)


@dataclass(frozen=True, slots=True)
class CreateBucket:
    """Make a bucket. Raises BucketExists."""

    name: str
    owner: str
    acl: str

    def __call__(self, transaction: Transaction) -> Bucket:
        """Apply it."""
        found = transaction.db.execute("SELECT owner FROM buckets WHERE name = ?", (self.name,)).fetchone()
        if found:
            raise BucketExists(f"There is a bucket {self.name}.", owner=found[0])
        row = (self.name, self.owner, transaction.now_ns, self.acl)
        transaction.db.execute("INSERT INTO buckets (name, owner, created_ns, acl) VALUES (?, ?, ?, ?)", row)
        return rows.to_bucket(row)


@dataclass(frozen=True, slots=True)
class DeleteBucket:
    """Remove an empty bucket, and the uploads under way in it. Raises NoSuchBucket, BucketNotEmpty."""

    name: str

    def __call__(self, transaction: Transaction) -> None:
        """Apply it."""
        db = transaction.db
        bucket = bucket_id(transaction, self.name)
        if db.execute("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1", (bucket,)).fetchone():
            raise BucketNotEmpty(f"The bucket {self.name} is not empty.")
        in_bucket = "upload IN (SELECT id FROM uploads WHERE bucket = ?)"
        parts = db.execute(f"SELECT blob FROM parts WHERE {in_bucket}", (bucket,)).fetchall()  # noqa: S608 - constant
        retire(transaction, [row[0] for row in parts])
        db.execute(f"DELETE FROM parts WHERE {in_bucket}", (bucket,))  # noqa: S608 - constant
        db.execute("DELETE FROM uploads WHERE bucket = ?", (bucket,))
        db.execute("DELETE FROM completed WHERE bucket = ?", (bucket,))
        db.execute("DELETE FROM buckets WHERE id = ?", (bucket,))


@dataclass(frozen=True, slots=True)
class SetBucketAcl:
    """Keep a bucket's ACL. Raises NoSuchBucket."""

    name: str
    acl: str

    def __call__(self, transaction: Transaction) -> None:
        """Apply it."""
        bucket = bucket_id(transaction, self.name)
        transaction.db.execute("UPDATE buckets SET acl = ? WHERE id = ?", (self.acl, bucket))


@dataclass(frozen=True, slots=True)
class PutObject:
    """Make an object of one blob. Raises NoSuchBucket, NoSuchKey, PreconditionFailed."""

    bucket: str
    key: str
    blob: Blob
    attributes: Attributes
    condition: WriteCondition | None

    def __call__(self, transaction: Transaction) -> ObjectInfo:
        """Apply it."""
        blob = self.blob
        new = NewObject(
            size=blob.size,
            etag=blob.md5_hex,
            attributes=rows.encode_attributes(self.attributes),
            checksums=rows.encode_map(blob.checksums),
            checksum_type="FULL_OBJECT" if blob.checksums else "",
            blob=blob.id,
        )
        key = rows.encode_key(self.key)
        row = place(transaction, bucket_id(transaction, self.bucket), key, new, self.condition)
        adopt(transaction, blob.id)
        return rows.to_info(self.bucket, self.key, row)


@dataclass(frozen=True, slots=True)
class PutObjects:
    """Make objects, each of one blob. Raises NoSuchBucket."""

    bucket: str
    objects: Sequence[tuple[Whole, Blob]]

    def __call__(self, transaction: Transaction) -> list[ObjectInfo]:
        """Apply it."""
        bucket = bucket_id(transaction, self.bucket)
        now_ns, execute = transaction.now_ns, transaction.db.execute
        ids = [(blob.id,) for _, blob in self.objects]
        transaction.db.executemany("INSERT INTO blobs (id, due_ns) VALUES (?, NULL)", ids)
        made: list[ObjectInfo] = []
        for whole, blob in self.objects:
            key = rows.encode_key(whole.key)
            row = (bucket, key, blob.size, blob.md5_hex, now_ns, rows.encode_attributes(whole.attributes), blob.id)
            if not execute(_PUT_NEW, row).rowcount:
                old = execute("SELECT blob, pieces FROM objects WHERE bucket = ? AND key = ?", row[:2]).fetchone()
                execute(_PUT_OVER, row)
                _retire_object(transaction, *old)
            made.append(ObjectInfo(self.bucket, whole.key, blob.size, blob.md5_hex, now_ns, whole.attributes))
        return made


@dataclass(frozen=True, slots=True)
class UpdateObject:
    """Replace an object's tags, its ACL or both. Raises NoSuchBucket, NoSuchKey."""

    bucket: str
    key: str
    tags: Mapping[str, str] | None
    acl: str | None

    def __call__(self, transaction: Transaction) -> ObjectInfo:
        """Apply it."""
        where = (bucket_id(transaction, self.bucket), rows.encode_key(self.key))
        row = transaction.db.execute(
            "SELECT size, etag, modified_ns, attributes, checksums, checksum_type, blob, pieces, piece_checksums"
            " FROM objects WHERE bucket = ? AND key = ?",
            where,
        ).fetchone()
        if row is None:
            raise NoSuchKey(f"There is no object {self.key}.")
        info = rows.to_info(self.bucket, self.key, row)
        info = replace(info, attributes=updated(info.attributes, self.tags, self.acl))
        transaction.db.execute(
            "UPDATE objects SET attributes = ? WHERE bucket = ? AND key = ?",
            (rows.encode_attributes(info.attributes), *where),
        )
        return info


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """Remove an object; returns whether there was one. Raises NoSuchBucket, NoSuchKey, PreconditionFailed."""

    bucket: str
    key: str
    condition: WriteCondition | None

    def __call__(self, transaction: Transaction) -> bool:
        """Apply it."""
        where = (bucket_id(transaction, self.bucket), rows.encode_key(self.key))
        old = transaction.db.execute(
            "SELECT etag, blob, pieces FROM objects WHERE bucket = ? AND key = ?", where
        ).fetchone()
        check_condition(self.condition, old[0] if old else None)
        if old is None:
            return False
        transaction.db.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", where)
        _retire_object(transaction, old[1], old[2])
        return True
