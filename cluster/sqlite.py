"""SQLite files that the processes of a data folder share: how one is opened and changed, and its errors told."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transom.cluster.records import CatalogError

BUSY_TIMEOUT_S = 10.0


def connect(path: Path, *, durable: bool = True) -> sqlite3.Connection:
    """Open a connection for any thread, its transactions ours to begin and end.

    One that isn't `durable` may lose its last transactions in a power cut, never in a crash. Raises sqlite3.Error.
    """
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold off other processes: SQLite doesn't wait when two of them switch a new file to WAL."""
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Change a file whole or not at all; whoever else writes waits. Raises sqlite3.Error."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself rolls back when a disk is full
            db.execute("ROLLBACK")
        raise


@contextmanager
def sqlite_errors() -> Iterator[None]:
    """Turn SQLite's errors into CatalogError."""
    try:
        yield
    except sqlite3.Error as error:
        raise unusable(error) from error


def unusable(error: sqlite3.Error) -> CatalogError:
    """The catalog's own error for one of SQLite's."""
    return CatalogError(f"the catalog can't be used: {error}")
