"""The changes of multipart uploads, each run inside a transaction of the index writer.

Completing copies no bytes: the object becomes the list of its parts' blobs.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transom.target.errors import NoSuchUpload
from transom.target.store.base import Attributes, ObjectInfo, Part, Upload, WriteCondition
from transom.target.store.local import rows
from transom.target.store.local.blobs import Blob
from transom.target.store.local.changes import NewObject, adopt, bucket_id, place, retire
from transom.target.store.local.writer import Transaction
from transom.target.store.rules import choose_parts, multipart_etag

REMEMBER_NS = 24 * 3600 * 10**9


@dataclass(frozen=True, slots=True)
class UploadName:
    """Which upload; the key and the bucket are part of its name."""

    bucket: str
    key: str
    upload_id: str

    def find(self, transaction: Transaction) -> int:
        """The upload's row. Raises NoSuchBucket, NoSuchUpload."""
        bucket = bucket_id(transaction, self.bucket)
        row = transaction.db.execute(
            "SELECT id FROM uploads WHERE bucket = ? AND key = ? AND upload_id = ?",
            (bucket, rows.encode_key(self.key), self.upload_id),
        ).fetchone()
        if row is None:
            raise self.missing()
        return int(row[0])

    def missing(self) -> NoSuchUpload:
        """The error for one that isn't there."""
        return NoSuchUpload("The upload does not exist; it may have been completed or aborted.")


@dataclass(frozen=True, slots=True)
class CreateUpload:
    """Begin an upload. Raises NoSuchBucket."""

    bucket: str
    key: str
    attributes: Attributes
    checksum_algorithm: str
    checksum_type: str

    def __call__(self, transaction: Transaction) -> Upload:
        """Apply it. Ids sort by time, so that listings show the uploads of a key in the order they began."""
        upload_id = f"{transaction.now_ns:016x}{secrets.token_hex(8)}"
        row = (
            *(rows.encode_key(self.key), upload_id, transaction.now_ns),
            *(rows.encode_attributes(self.attributes), self.checksum_algorithm, self.checksum_type),
        )
        transaction.db.execute(
            "INSERT INTO uploads (bucket, key, upload_id, started_ns, attributes, checksum_algorithm, checksum_type)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (bucket_id(transaction, self.bucket), *row),
        )
        return rows.to_upload(self.bucket, row)


@dataclass(frozen=True, slots=True)
class PutPart:
    """Keep a part, in place of one of the same number. Raises NoSuchBucket, NoSuchUpload."""

    name: UploadName
    number: int
    blob: Blob

    def __call__(self, transaction: Transaction) -> Part:
        """Apply it."""
        upload = self.name.find(transaction)
        old = transaction.db.execute(
            "SELECT blob FROM parts WHERE upload = ? AND number = ?", (upload, self.number)
        ).fetchone()
        if old:
            retire(transaction, [old[0]])
        blob = self.blob
        row = (self.number, blob.size, blob.md5_hex, transaction.now_ns, rows.encode_map(blob.checksums))
        transaction.db.execute(
            "INSERT OR REPLACE INTO parts (upload, number, size, etag, modified_ns, checksums, blob)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (upload, *row, blob.id),
        )
        adopt(transaction, blob.id)
        return rows.to_part(row)


@dataclass(frozen=True, slots=True)
class AbortUpload:
    """Give an upload and its parts up. Raises NoSuchBucket, NoSuchUpload."""

    name: UploadName

    def __call__(self, transaction: Transaction) -> None:
        """Apply it."""
        upload = self.name.find(transaction)
        retire(transaction, [piece.blob for piece in _pieces(transaction, upload).values()])
        _remove(transaction, upload)


@dataclass(frozen=True, slots=True)
class CompleteUpload:
    """Make the object of the named parts, and remember it for a day, in case the client asks again."""

    name: UploadName
    wanted: Sequence[tuple[int, str]]
    checksums: Mapping[str, str]
    checksum_type: str
    condition: WriteCondition | None
    min_part_size: int

    def __call__(self, transaction: Transaction) -> ObjectInfo:
        """Apply it."""
        try:
            upload = self.name.find(transaction)
        except NoSuchUpload:
            return self._made_before(transaction)
        have = _pieces(transaction, upload)
        parts = {number: piece.part for number, piece in have.items()}
        chosen = [have[part.number] for part in choose_parts(self.wanted, parts, self.min_part_size)]
        made = self._make(transaction, upload, chosen)
        used = {piece.part.number for piece in chosen}
        retire(transaction, [piece.blob for number, piece in have.items() if number not in used])
        _remove(transaction, upload)
        return made

    def _make(self, transaction: Transaction, upload: int, chosen: Sequence[rows.Piece]) -> ObjectInfo:
        bucket, attributes = transaction.db.execute(
            "SELECT bucket, attributes FROM uploads WHERE id = ?", (upload,)
        ).fetchone()
        new = NewObject(
            size=sum(piece.part.size for piece in chosen),
            etag=multipart_etag(piece.part.etag for piece in chosen),
            attributes=attributes,
            checksums=rows.encode_map(self.checksums),
            checksum_type=self.checksum_type,
            pieces=rows.pack_pieces(chosen),
            piece_checksums=rows.pack_checksums(chosen),
        )
        key = rows.encode_key(self.name.key)
        row = place(transaction, bucket, key, new, self.condition)
        forget_completed(transaction)
        transaction.db.execute(
            "INSERT INTO completed (bucket, key, upload_id, completed_ns, asked, size, etag, modified_ns, attributes,"
            " checksums, checksum_type) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (bucket, key, self.name.upload_id, transaction.now_ns, self._asked(), *row[:6]),
        )
        return rows.to_info(self.name.bucket, self.name.key, row)

    def _asked(self) -> str:
        return hashlib.sha256(repr([(number, etag.strip('"')) for number, etag in self.wanted]).encode()).hexdigest()

    def _made_before(self, transaction: Transaction) -> ObjectInfo:
        row = transaction.db.execute(
            "SELECT size, etag, modified_ns, attributes, checksums, checksum_type FROM completed"
            " WHERE bucket = ? AND key = ? AND upload_id = ? AND asked = ?",
            (
                *(bucket_id(transaction, self.name.bucket), rows.encode_key(self.name.key)),
                *(self.name.upload_id, self._asked()),
            ),
        ).fetchone()
        if row is None:
            raise self.name.missing()
        return rows.to_info(self.name.bucket, self.name.key, row)


def forget_completed(transaction: Transaction) -> None:
    """Drop what is remembered of uploads that were completed long ago."""
    transaction.db.execute("DELETE FROM completed WHERE completed_ns < ?", (transaction.now_ns - REMEMBER_NS,))


def _pieces(transaction: Transaction, upload: int) -> dict[int, rows.Piece]:
    found = transaction.db.execute(
        "SELECT number, size, etag, modified_ns, checksums, blob FROM parts WHERE upload = ?", (upload,)
    )
    return {row[0]: rows.Piece(rows.to_part(row[:5]), row[5]) for row in found}


def _remove(transaction: Transaction, upload: int) -> None:
    transaction.db.execute("DELETE FROM parts WHERE upload = ?", (upload,))
    transaction.db.execute("DELETE FROM uploads WHERE id = ?", (upload,))
