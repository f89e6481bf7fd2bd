"""Who uses a data folder: every process holds a shared lock; one that finds itself alone sweeps up first.

What a crash leaves behind is never served, since no row names it; sweeping only gives the room back. Of what is under
tmp/ the makers there see to while others use the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import time
from pathlib import Path

from transom.target.store.local.blobs import BlobFolder, make_epoch, sync_folder
from transom.target.store.local.multipart import forget_completed
from transom.target.store.local.schema import connect, get_state, prepare, set_state
from transom.target.store.local.writer import Transaction


class FolderLock:
    """A shared hold on a data folder. `epoch` is what new blobs are written in."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / "tmp").mkdir(parents=True, exist_ok=True)
        (root / "blobs").mkdir(exist_ok=True)
        self._fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.epoch = self._join()
        except BaseException:
            os.close(self._fd)
            raise

    def release(self) -> None:
        """Let go of the folder; safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _join(self) -> int:
        """Take a shared hold; returns the epoch. Downgrading a lock may let another in between, hence the loop."""
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._begin()
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            epoch = self._current_epoch()
            if epoch:
                return epoch
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _current_epoch(self) -> int:
        """The epoch that is open; 0 when whoever was to open it died."""
        with contextlib.closing(connect(self._root / "index.sqlite")) as db:
            try:
                return get_state(db, "epoch")
            except sqlite3.OperationalError:  # no tables yet
                return 0

    def _begin(self) -> None:
        """Alone: sweep what the last run left, and open a new epoch."""
        index = self._root / "index.sqlite"
        index.touch(mode=0o600)
        with contextlib.closing(connect(index)) as db:
            prepare(db)
            last = get_state(db, "epoch")
            sweep(self._root, db)
            make_epoch(self._root, last + 1)
            set_state(db, "epoch", last + 1)
        sync_folder(str(self._root))


def sweep(root: Path, db: sqlite3.Connection) -> None:
    """Remove temporary files, blobs due for it, and blobs that no row names in the epochs since the last sweep."""
    for left in (root / "tmp").iterdir():
        left.unlink()
    _unlink_due(root, db)
    last, swept = get_state(db, "epoch"), get_state(db, "swept")
    for folder in sorted((root / "blobs").iterdir()):
        epoch = int(folder.name, 16)
        if epoch > swept:
            _sweep_epoch(folder, db)
        if epoch <= last and not _in_use(db, epoch):
            shutil.rmtree(folder)
    set_state(db, "swept", last)
    forget_completed(Transaction(db, time.time_ns()))


def _unlink_due(root: Path, db: sqlite3.Connection) -> None:
    """Nobody reads now, so nothing needs its grace any more."""
    due = [row[0] for row in db.execute("SELECT id FROM blobs WHERE due_ns IS NOT NULL")]
    BlobFolder(root, 0, "").discard(due)
    db.execute("DELETE FROM blobs WHERE due_ns IS NOT NULL")


def _sweep_epoch(folder: Path, db: sqlite3.Connection) -> None:
    for sub in folder.iterdir():
        for entry in os.scandir(sub):
            if not db.execute("SELECT 1 FROM blobs WHERE id = ?", (bytes.fromhex(entry.name),)).fetchone():
                Path(entry.path).unlink()


def _in_use(db: sqlite3.Connection, epoch: int) -> bool:
    bounds = (epoch.to_bytes(4, "big"), (epoch + 1).to_bytes(4, "big"))
    return db.execute("SELECT 1 FROM blobs WHERE id >= ? AND id < ? LIMIT 1", bounds).fetchone() is not None
