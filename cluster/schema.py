"""The tables of the catalog's SQLite file, and how an older release's are brought up to date.

It knows nothing of what the rows mean.
"""

from __future__ import annotations

import sqlite3

from transom.cluster.records import CatalogError

_FIRST = """
CREATE TABLE etls (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, plugin TEXT NOT NULL, args TEXT NOT NULL, deterministic INTEGER,
    cache INTEGER NOT NULL, concurrency INTEGER, timeout_s REAL, state TEXT NOT NULL, owner TEXT NOT NULL,
    revision INTEGER NOT NULL, changed_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE revisions (name TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE views (
    name TEXT PRIMARY KEY, bucket TEXT NOT NULL, pipeline TEXT NOT NULL, args TEXT NOT NULL, extensions TEXT NOT NULL,
    sizes TEXT NOT NULL, owner TEXT NOT NULL, created_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE circuits (
    etl TEXT PRIMARY KEY, failures INTEGER NOT NULL, opened_until_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE changes (version INTEGER NOT NULL);
INSERT INTO changes VALUES (0);
"""
_RUNTIMES = """
ALTER TABLE etls ADD COLUMN runtime TEXT NOT NULL DEFAULT 'plugin';
ALTER TABLE etls ADD COLUMN spec TEXT NOT NULL DEFAULT '{}';
ALTER TABLE etls ADD COLUMN message TEXT NOT NULL DEFAULT '';
ALTER TABLE etls ADD COLUMN launch_ns INTEGER NOT NULL DEFAULT 0;
CREATE TABLE pending (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, plugin TEXT NOT NULL, args TEXT NOT NULL, deterministic INTEGER,
    cache INTEGER NOT NULL, concurrency INTEGER, timeout_s REAL, state TEXT NOT NULL, owner TEXT NOT NULL,
    revision INTEGER NOT NULL, changed_ns INTEGER NOT NULL, runtime TEXT NOT NULL, spec TEXT NOT NULL,
    message TEXT NOT NULL, launch_ns INTEGER NOT NULL
) WITHOUT ROWID;
"""
# A file of version N has had the first N of these; they stay as they were released.
_STEPS = (_FIRST, _RUNTIMES)
SCHEMA_VERSION = len(_STEPS)


def migrate(db: sqlite3.Connection) -> None:
    """Make the tables of a new file, or bring an older release's up to date, whole or not at all."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise CatalogError(
            f"the catalog was written by a newer release (schema {version}, this one knows {SCHEMA_VERSION})"
        )
    if version < SCHEMA_VERSION:
        steps = "".join(_STEPS[version:])
        try:
            db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
