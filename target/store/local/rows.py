"""How objects, parts and attributes stand in the index's rows; no SQL and no files."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, overload

from transom.target.store.base import Attributes, Bucket, ObjectInfo, Part, Upload

_PIECE = struct.Struct(">HQQ16s16s")  # number, size, modified_ns, MD5, blob id


@dataclass(frozen=True, slots=True)
class Piece:
    """A part, with the blob that holds it."""

    part: Part
    blob: bytes


def encode_key(key: str) -> bytes:
    """A key as it is kept: its UTF-8 bytes (lone surrogates pass, though no S3 request can name one)."""
    return key.encode("utf-8", "surrogatepass")


def decode_key(key: bytes) -> str:
    """The inverse of `encode_key`."""
    return key.decode("utf-8", "surrogatepass")


def encode_map(values: Mapping[str, str]) -> str:
    """A mapping as JSON; an empty one as nothing."""
    return json.dumps(dict(values), separators=(",", ":")) if values else ""


@lru_cache(maxsize=4096)
def decode_map(text: str) -> Mapping[str, str]:
    """The inverse of `encode_map`; equal texts share one value."""
    return json.loads(text) if text else {}


def encode_attributes(attributes: Attributes) -> str:
    """Attributes as a JSON list, in the order of the class's fields."""
    a = attributes
    fields = [dict(a.content), dict(a.metadata), dict(a.tags), a.owner, a.acl, a.storage_class]
    return json.dumps(fields, separators=(",", ":"))


@lru_cache(maxsize=4096)
def decode_attributes(text: str) -> Attributes:
    """The inverse of `encode_attributes`; objects written alike share one value."""
    return Attributes(*json.loads(text))


def pack_pieces(pieces: Iterable[Piece]) -> bytes:
    """Pieces as fixed-size records: ten thousand of them are half a megabyte and quick to walk."""
    return b"".join(
        _PIECE.pack(p.part.number, p.part.size, p.part.modified_ns, bytes.fromhex(p.part.etag), p.blob) for p in pieces
    )


def pack_checksums(pieces: Sequence[Piece]) -> str | None:
    """The checksums of pieces as a JSON list; None when there are none."""
    if not any(piece.part.checksums for piece in pieces):
        return None
    return json.dumps([dict(piece.part.checksums) for piece in pieces], separators=(",", ":"))


def piece_blobs(packed: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk packed pieces as (size, blob id)."""
    for _, size, _, _, blob in _PIECE.iter_unpack(packed):
        yield size, blob


class PackedParts(Sequence[Part]):
    """The parts of an object, unpacked as they are looked at: most readers never do."""

    __slots__ = ("_checksums", "_decoded", "_packed")

    def __init__(self, packed: bytes, checksums: str | None) -> None:
        self._packed = packed
        self._checksums = checksums
        self._decoded: list[dict[str, str]] | None = None

    def __len__(self) -> int:
        return len(self._packed) // _PIECE.size

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Part]: ...
    def __getitem__(self, index: int | slice) -> Part | Sequence[Part]:
        positions = range(len(self))[index]
        return self._at(positions) if isinstance(positions, int) else [self._at(at) for at in positions]

    def _at(self, index: int) -> Part:
        number, size, modified_ns, md5, _ = _PIECE.unpack_from(self._packed, index * _PIECE.size)
        return Part(number, size, md5.hex(), modified_ns, self._sums(index))

    def _sums(self, index: int) -> dict[str, str]:
        if self._checksums is None:
            return {}
        if self._decoded is None:
            self._decoded = json.loads(self._checksums)
        return self._decoded[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list: equal to others of its kind, not hashable

    def __repr__(self) -> str:
        return f"PackedParts({list(self)!r})"


def to_bucket(row: tuple[Any, ...]) -> Bucket:
    """A row of (name, owner, created_ns, acl)."""
    name, owner, created_ns, acl = row
    return Bucket(name, owner, created_ns, acl)


def to_info(bucket: str, key: str, row: tuple[Any, ...]) -> ObjectInfo:
    """A row that starts with (size, etag, modified_ns, attributes, checksums, checksum_type)."""
    size, etag, modified_ns, attributes, checksums, checksum_type = row[:6]
    parts = PackedParts(row[7], row[8]) if len(row) > 6 and row[7] is not None else ()  # noqa: PLR2004 - columns
    return ObjectInfo(
        bucket,
        key,
        size,
        etag,
        modified_ns,
        decode_attributes(attributes),
        decode_map(checksums),
        checksum_type,
        parts,
    )


def to_upload(bucket: str, row: tuple[Any, ...]) -> Upload:
    """A row of (key, upload_id, started_ns, attributes, checksum_algorithm, checksum_type)."""
    key, upload_id, started_ns, attributes, algorithm, checksum_type = row
    return Upload(
        bucket, decode_key(key), upload_id, started_ns, decode_attributes(attributes), algorithm, checksum_type
    )


def to_part(row: tuple[Any, ...]) -> Part:
    """A row of (number, size, etag, modified_ns, checksums)."""
    number, size, etag, modified_ns, checksums = row
    return Part(number, size, etag, modified_ns, decode_map(checksums))
