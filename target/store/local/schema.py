"""The index's tables and how a connection to it is opened; nothing of what the rows mean.

Keys are BLOBs: they sort by UTF-8 bytes and may hold NUL. `blobs` has a row for every blob that an object or a
part uses, and one with `due_ns` for every blob that nothing uses any more and that is still to be unlinked.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

VERSION = 1
BUSY_TIMEOUT_S = 60.0

TABLES = """
CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE buckets (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, created_ns INTEGER NOT NULL,
  acl TEXT NOT NULL
);
CREATE TABLE objects (
  bucket INTEGER NOT NULL, key BLOB NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
  modified_ns INTEGER NOT NULL, attributes TEXT NOT NULL, checksums TEXT NOT NULL, checksum_type TEXT NOT NULL,
  blob BLOB, pieces BLOB, piece_checksums TEXT,
  PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE uploads (
  id INTEGER PRIMARY KEY, bucket INTEGER NOT NULL, key BLOB NOT NULL, upload_id TEXT NOT NULL,
  started_ns INTEGER NOT NULL, attributes TEXT NOT NULL, checksum_algorithm TEXT NOT NULL,
  checksum_type TEXT NOT NULL,
  UNIQUE (bucket, key, upload_id)
);
CREATE TABLE parts (
  upload INTEGER NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
  modified_ns INTEGER NOT NULL, checksums TEXT NOT NULL, blob BLOB NOT NULL,
  PRIMARY KEY (upload, number)
) WITHOUT ROWID;
CREATE TABLE completed (
  bucket INTEGER NOT NULL, key BLOB NOT NULL, upload_id TEXT NOT NULL, completed_ns INTEGER NOT NULL,
  asked TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL, modified_ns INTEGER NOT NULL,
  attributes TEXT NOT NULL, checksums TEXT NOT NULL, checksum_type TEXT NOT NULL,
  PRIMARY KEY (bucket, key, upload_id)
) WITHOUT ROWID;
CREATE INDEX completed_by_age ON completed (completed_ns);
CREATE TABLE blobs (id BLOB PRIMARY KEY, due_ns INTEGER) WITHOUT ROWID;
CREATE INDEX blobs_due ON blobs (due_ns) WHERE due_ns IS NOT NULL;
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection in autocommit mode; any one thread at a time may use it."""
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA cache_size = -16384")
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute("PRAGMA wal_autocheckpoint = 2000")
    return db


def prepare(db: sqlite3.Connection) -> None:
    """Make the tables of a new index; refuse one that a later version made. Only for one who is alone."""
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise RuntimeError(f"The data folder was made by a later version (index {found}, known {VERSION}).")
    db.execute("PRAGMA journal_mode = WAL")
    if found == 0:
        db.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")


def get_state(db: sqlite3.Connection, name: str) -> int:
    """One of the index's own numbers; 0 when it was never set."""
    row = db.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def set_state(db: sqlite3.Connection, name: str, value: int) -> None:
    """Keep one of the index's own numbers."""
    db.execute("INSERT OR REPLACE INTO state (name, value) VALUES (?, ?)", (name, value))
