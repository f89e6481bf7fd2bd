"""Reading the index: single rows at once in whatever thread asks, each thread on a connection of its own.

It knows nothing of files and writes nothing.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transom.target.errors import NoSuchBucket, NoSuchKey, NoSuchUpload
from transom.target.store.base import Bucket, Listing, Part, Upload, UploadListing
from transom.target.store.listing import Page, roll_up
from transom.target.store.local import rows
from transom.target.store.local.schema import connect

_FIND_OBJECT = (
    "SELECT size, etag, modified_ns, attributes, checksums, checksum_type, blob, pieces, piece_checksums"
    " FROM buckets LEFT JOIN objects ON bucket = id AND key = ? WHERE name = ?"
)
_LIST_OBJECTS = (
    "SELECT key, size, etag, modified_ns, attributes, checksums, checksum_type"
    " FROM objects WHERE bucket = ? AND key >= ? ORDER BY key"
)
_LIST_UPLOADS = (
    "SELECT key, upload_id, started_ns, attributes, checksum_algorithm, checksum_type FROM uploads"
    " WHERE bucket = ? AND (key, upload_id) >= (?, ?) ORDER BY key, upload_id"
)
_FIND_UPLOAD = (
    "SELECT uploads.id, key, upload_id, started_ns, attributes, checksum_algorithm, checksum_type"
    " FROM buckets LEFT JOIN uploads ON bucket = buckets.id AND key = ? AND upload_id = ? WHERE name = ?"
)


class Index:
    """The read side of an index."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []

    def _db(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = connect(self._path)
            db.execute("PRAGMA query_only = ON")
            self._opened.append(db)
        return db

    def close(self) -> None:
        """Close every thread's connection; no thread may be using one."""
        for db in self._opened:
            db.close()

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """Several queries of one state of the index."""
        db = self._db()
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.execute("COMMIT")

    def bucket(self, name: str) -> Bucket:
        """Raises NoSuchBucket."""
        row = self._db().execute("SELECT name, owner, created_ns, acl FROM buckets WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NoSuchBucket(f"There is no bucket {name}.")
        return rows.to_bucket(row)

    def buckets(self) -> list[Bucket]:
        """All buckets, by name."""
        found = self._db().execute("SELECT name, owner, created_ns, acl FROM buckets ORDER BY name")
        return [rows.to_bucket(row) for row in found]

    def object_row(self, bucket: str, key: str) -> tuple[Any, ...]:
        """The columns that `rows.to_info` takes; [6] is the blob, [7] the packed pieces.

        Raises NoSuchBucket, NoSuchKey.
        """
        row: tuple[Any, ...] | None = (
            self._db().execute(_FIND_OBJECT, (key.encode("utf-8", "surrogatepass"), bucket)).fetchone()
        )
        if row is None:
            raise NoSuchBucket(f"There is no bucket {bucket}.")
        if row[0] is None:
            raise NoSuchKey(f"There is no object {key}.")
        return row

    def upload(self, bucket: str, key: str, upload_id: str) -> tuple[int, Upload]:
        """An upload under way, with its row. Raises NoSuchBucket, NoSuchUpload."""
        row = self._db().execute(_FIND_UPLOAD, (rows.encode_key(key), upload_id, bucket)).fetchone()
        if row is None:
            raise NoSuchBucket(f"There is no bucket {bucket}.")
        if row[0] is None:
            raise NoSuchUpload("The upload does not exist; it may have been completed or aborted.")
        return row[0], rows.to_upload(bucket, row[1:])

    def parts(self, bucket: str, key: str, upload_id: str, after: int, limit: int) -> list[Part]:
        """Parts above number `after`. Raises NoSuchBucket, NoSuchUpload."""
        with self._snapshot() as db:
            upload, _ = self.upload(bucket, key, upload_id)
            found = db.execute(
                "SELECT number, size, etag, modified_ns, checksums FROM parts WHERE upload = ? AND number > ?"
                " ORDER BY number LIMIT ?",
                (upload, after, max(limit, 0)),
            )
            return [rows.to_part(row) for row in found]

    def list_objects(self, bucket: str, prefix: str, delimiter: str, after: str, limit: int) -> Listing:
        """One page of keys; their `parts` are left out. Raises NoSuchBucket."""
        with self._snapshot() as db:
            at = self._bucket_id(db, bucket)

            def seek(key: bytes, _: str) -> Iterator[tuple[Any, ...]]:
                return db.execute(_LIST_OBJECTS, (at, key))

            page = _page(prefix, delimiter, (after, ""), limit)
            entries, next_after = roll_up(seek, page)
        objects = [
            rows.to_info(bucket, rows.decode_key(entry[0]), entry[1:]) for entry in entries if isinstance(entry, tuple)
        ]
        return Listing(objects, _prefixes(entries), rows.decode_key(next_after[0]) if next_after else None)

    def uploads(self, bucket: str, prefix: str, delimiter: str, after: tuple[str, str], limit: int) -> UploadListing:
        """One page of uploads under way. Raises NoSuchBucket."""
        with self._snapshot() as db:
            at = self._bucket_id(db, bucket)

            def seek(key: bytes, upload_id: str) -> Iterator[tuple[Any, ...]]:
                return db.execute(_LIST_UPLOADS, (at, key, upload_id))

            page = _page(prefix, delimiter, after, limit, several=True)
            entries, next_after = roll_up(seek, page)
        uploads = [rows.to_upload(bucket, entry) for entry in entries if isinstance(entry, tuple)]
        following = (rows.decode_key(next_after[0]), next_after[1]) if next_after else None
        return UploadListing(uploads, _prefixes(entries), following)

    def _bucket_id(self, db: sqlite3.Connection, name: str) -> int:
        row = db.execute("SELECT id FROM buckets WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NoSuchBucket(f"There is no bucket {name}.")
        return int(row[0])


def _page(prefix: str, delimiter: str, after: tuple[str, str], limit: int, *, several: bool = False) -> Page:
    key = rows.encode_key(after[0])
    return Page(rows.encode_key(prefix), rows.encode_key(delimiter), (key, after[1]), limit, several)


def _prefixes(entries: Sequence[tuple[Any, ...] | bytes]) -> list[str]:
    return [rows.decode_key(entry) for entry in entries if isinstance(entry, bytes)]
