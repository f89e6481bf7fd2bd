"""What went wrong with which object: a bounded record on disk for each ETL, shared by every process of a data folder.

It is for people who look for a cause afterwards; no run depends on it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transom.cluster.sqlite import alone, connect, transaction

KEEP = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS errors (
    id INTEGER PRIMARY KEY, etl TEXT NOT NULL, at_s REAL NOT NULL, bucket TEXT NOT NULL, key TEXT NOT NULL,
    code TEXT NOT NULL, message TEXT NOT NULL, pipeline TEXT NOT NULL, job TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS errors_etl ON errors (etl, id);
DROP INDEX IF EXISTS errors_job;
"""
_COLUMNS = "etl, at_s, bucket, key, code, message, pipeline, job"


@dataclass(frozen=True, slots=True)
class ErrorEntry:
    """One failed run: `etl` is the stage to blame, `at_s` in epoch seconds, `code` an error's name in S3's answers."""

    etl: str
    at_s: float
    bucket: str
    key: str
    code: str
    message: str
    pipeline: str = ""
    job: str = ""


class ErrorLog:
    """The errors of a data folder's ETLs; callable from any thread. The newest `keep` of each ETL stay.

    That goes for a job's too: all of them are in its worklist.
    """

    def __init__(self, path: Path, *, keep: int = KEEP) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._keep = keep
        self._lock = threading.Lock()
        with alone(path):
            self._db = connect(path, durable=False)
            self._db.executescript(_SCHEMA)

    def add(self, entry: ErrorEntry) -> None:
        """Keep an error, and forget the ETL's oldest beyond the bound. Blocking."""
        self.add_many([entry])

    def add_many(self, entries: Sequence[ErrorEntry]) -> None:
        """Keep errors in one transaction, the oldest first, and forget each ETL's oldest beyond the bound. Blocking."""
        now_s = time.time()
        with self._transaction() as db:
            db.executemany(
                f"INSERT INTO errors ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                ((e.etl, e.at_s or now_s, e.bucket, e.key, e.code, e.message, e.pipeline, e.job) for e in entries),
            )
            db.executemany(
                "DELETE FROM errors WHERE etl = ?1 AND id <="
                " (SELECT id FROM errors WHERE etl = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                ((etl, self._keep) for etl in {entry.etl for entry in entries}),
            )

    def of_etl(self, etl: str, limit: int = 100) -> list[ErrorEntry]:
        """The ETL's newest errors, the newest first. Blocking."""
        with self._lock:
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM errors WHERE etl = ? ORDER BY id DESC LIMIT ?",  # noqa: S608
                (etl, limit),
            ).fetchall()
        return [ErrorEntry(*row) for row in rows]

    def forget(self, etl: str) -> None:
        """Drop what is known of a removed ETL. Blocking."""
        with self._transaction() as db:
            db.execute("DELETE FROM errors WHERE etl = ?", (etl,))

    def close(self) -> None:
        """Close the file; the log can't be used afterwards."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, transaction(self._db) as db:
            yield db
