"""Blob files: written under tmp/, made durable, moved to blobs/<epoch>/<2 hex>/<id>. Nothing of the index.

An id is the epoch, the time and a random number, so that ids sort by age; its last byte names the folder.
Everything here blocks and runs in worker threads, but for `open`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from transom.target.errors import StoreFull
from transom.target.store.base import Intake

_ID = struct.Struct(">IQI")
_PLACE_SIZE = 4096  # blobs that a process writes together into one folder before it takes another
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Blob:
    """A durable blob that no row uses yet."""

    id: bytes
    size: int
    md5_hex: str
    checksums: Mapping[str, str] = field(default_factory=dict)


def epoch_of(blob_id: bytes) -> int:
    """The epoch that a blob was written in."""
    return int.from_bytes(blob_id[:4], "big")


def make_epoch(root: Path, epoch: int) -> None:
    """Make the folder of a new epoch, durably."""
    folder = root / "blobs" / f"{epoch:08x}"
    folder.mkdir(parents=True, exist_ok=True)
    for made in (folder.parent, root):
        sync_folder(str(made))


def sync_folder(path: str) -> None:
    """Make a folder's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class BlobFolder:
    """Where one process writes blobs of its epoch and reads those of any; `maker` names who makes files under tmp/."""

    def __init__(self, root: Path, epoch: int, maker: str) -> None:
        self.root = root
        self.epoch = epoch
        self._place, self._room = 0, 0
        self._temp = f"{root / 'tmp'}/{maker}-"
        self._blobs = str(root / "blobs")

    def new_id(self, place: int | None = None) -> bytes:
        """An id that was never used; of a blob in that folder of the epoch, if one is named."""
        chance = secrets.randbits(32) if place is None else secrets.randbits(24) << 8 | place
        return _ID.pack(self.epoch, time.time_ns(), chance)

    def place(self, count: int) -> int:
        """One of the epoch's folders for so many new blobs: for a while the same, since a new one costs a sync."""
        if self._room < count:
            self._place, self._room = secrets.randbits(8), _PLACE_SIZE
        self._room -= count
        return self._place

    def _folder(self, blob_id: bytes) -> str:
        return f"{self._blobs}/{blob_id[:4].hex()}/{blob_id[-1]:02x}"

    def open(self, blob_id: bytes) -> int:
        """A descriptor for reading; FileNotFoundError when the blob is gone."""
        return os.open(f"{self._folder(blob_id)}/{blob_id.hex()}", os.O_RDONLY)

    def link(self, blob_id: bytes) -> Path:
        """Another name for a blob, under tmp/, that stays when the blob is deleted."""
        link = Path(f"{self._temp}link-{blob_id.hex()}-{secrets.token_hex(4)}")
        link.hardlink_to(f"{self._folder(blob_id)}/{blob_id.hex()}")
        return link

    def create_temp(self, blob_id: bytes) -> int:
        """A descriptor for writing a new blob; the file is read-only to all who open it later."""
        return os.open(f"{self._temp}{blob_id.hex()}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)

    def open_place(self, place: int) -> int:
        """A descriptor of one of the epoch's folders, which is made if it isn't there yet, durably."""
        path = f"{self._blobs}/{self.epoch:08x}/{place:02x}"
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # its first blob is to come
            Path(path).mkdir(exist_ok=True)
            sync_folder(f"{self._blobs}/{self.epoch:08x}")
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def publish(self, blob_id: bytes) -> None:
        """Move a written and synced blob to its place, durably."""
        folder = self._folder(blob_id)
        name = blob_id.hex()
        temp, path = Path(f"{self._temp}{name}"), f"{folder}/{name}"
        try:
            temp.rename(path)
        except FileNotFoundError:  # the first blob of its folder
            Path(folder).mkdir(exist_ok=True)
            sync_folder(f"{self._blobs}/{blob_id[:4].hex()}")
            temp.rename(path)
        sync_folder(folder)

    def discard(self, blob_ids: Iterable[bytes]) -> None:
        """Unlink blobs, published or not; those that are gone already don't matter."""
        for blob_id in blob_ids:
            name = blob_id.hex()
            for path in (f"{self._folder(blob_id)}/{name}", f"{self._temp}{name}"):
                with contextlib.suppress(FileNotFoundError):
                    Path(path).unlink()


class BlobWriter:
    """One body on its way into a blob; each method is called by one worker thread at a time."""

    def __init__(self, folder: BlobFolder, intake: Intake | None) -> None:
        self._folder = folder
        self._intake = intake
        self._id = folder.new_id()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._size = 0
        self._fd = -1

    def write(self, chunks: list[bytes]) -> None:
        """Take the next bytes. Raises StoreFull."""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if not data:
            return
        self._md5.update(data)
        if self._intake is not None:
            self._intake.update(data)
        self._size += len(data)
        try:
            self._append(data)
        except OSError as error:
            raise refusal(error) from error

    def _append(self, data: bytes) -> None:
        if self._fd < 0:
            self._fd = self._folder.create_temp(self._id)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def finish(self, chunks: list[bytes]) -> Blob:
        """Take the last bytes, let the intake judge, and make the blob durable. Raises StoreFull."""
        self.write(chunks)
        md5_hex = self._md5.hexdigest()
        checksums = self._intake.finish(self._size, md5_hex) if self._intake is not None else {}
        try:
            self._append(b"")  # an empty body has a blob too
            os.fsync(self._fd)
            self._close()
            self._folder.publish(self._id)
        except OSError as error:
            raise refusal(error) from error
        return Blob(self._id, self._size, md5_hex, checksums)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._close()
        self._folder.discard([self._id])


def refusal(error: OSError) -> Exception:
    """What a caller is told of an error of the disk."""
    return StoreFull("The disk is full.") if error.errno in _FULL else error
