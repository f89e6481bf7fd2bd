"""Writes many small bodies as blobs and makes them durable together. Nothing of the index; it blocks.

They are written where they belong: until a row names it a blob is nobody's, and a sweep finds it where others are too.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Sequence

from transom.target.store.local.blobs import Blob, BlobFolder, refusal
from transom.target.store.local.syncing import can_sync_all, sync_all

_log = logging.getLogger("transom.store")


def write_together(folder: BlobFolder, bodies: Sequence[bytes]) -> list[Blob | Exception]:
    """A durable blob for each body, in order; or why there is none, StoreFull where the disk is full.

    All are in one of the epoch's folders, so that little but their own bytes has to be synced.
    """
    place = folder.place(len(bodies))
    try:
        fd = folder.open_place(place)
    except OSError as error:
        return [refusal(error)] * len(bodies)
    try:
        if can_sync_all(fd):
            written = [_write(folder, fd, place, body, synced=False) for body in bodies]
            try:
                sync_all(fd)
            except OSError as error:
                # what could not be written is not told, nor is it certain to be found out by asking each now
                _log.warning("the blobs of a batch are written again, each synced: %s", error)
                folder.discard([blob.id for blob in written if isinstance(blob, Blob)])
            else:
                return written
        return _write_one_by_one(folder, fd, place, bodies)
    finally:
        os.close(fd)


def _write_one_by_one(folder: BlobFolder, fd: int, place: int, bodies: Sequence[bytes]) -> list[Blob | Exception]:
    written = [_write(folder, fd, place, body, synced=True) for body in bodies]
    try:
        os.fsync(fd)
    except OSError as error:
        folder.discard([blob.id for blob in written if isinstance(blob, Blob)])
        return [refusal(error)] * len(bodies)
    return written


def _write(folder: BlobFolder, fd: int, place: int, body: bytes, *, synced: bool) -> Blob | Exception:
    blob_id = folder.new_id(place)
    name = blob_id.hex()
    try:
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400, dir_fd=fd)
        try:
            _write_all(file, body)
            if synced:
                os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=fd)
        return refusal(error)
    return Blob(blob_id, len(body), hashlib.md5(body, usedforsecurity=False).hexdigest())


def _write_all(file: int, body: bytes) -> None:
    written = os.write(file, body) if body else 0
    while written < len(body):
        written += os.write(file, memoryview(body)[written:])
