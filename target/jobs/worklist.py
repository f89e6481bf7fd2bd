"""A job's list of objects and what became of each: one SQLite file in the job's folder.

It only saves work: the truth is in the destination's objects, so nothing here is waited for on the disk. It knows
nothing of stores or ETLs.
"""

from __future__ import annotations

import itertools
import sqlite3
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from transom.cluster.sqlite import alone, connect, transaction
from transom.target.jobs.records import Counts, Item, JobError, Outcome, Selected

WORKLIST = "work.sqlite"  # in a job's folder
_BATCH = 2000
_SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS items (
    n INTEGER PRIMARY KEY, key TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL, destination TEXT UNIQUE,
    state TEXT NOT NULL, stage TEXT NOT NULL DEFAULT '', code TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '', bytes_in INTEGER NOT NULL DEFAULT 0, bytes_out INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS items_pending ON items (n) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS items_failed ON items (n) WHERE state = 'failed';
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
COMMIT;
"""
_INSERT = (
    "INSERT OR IGNORE INTO items (key, size, etag, destination, state, code, message) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_SETTLE = "UPDATE OR IGNORE items SET size = ?, etag = ?, destination = ? WHERE n = ?"
_NOTE = (
    "UPDATE items SET state = ?, stage = ?, code = ?, message = ?, bytes_in = ?, bytes_out = ?"
    " WHERE n = ? AND state = 'pending'"
)


class Collision(Exception):
    """Two objects would become one."""

    def __init__(self, first_key: str, second_key: str, destination: str) -> None:
        super().__init__(f"'{first_key}' and '{second_key}' would both become '{destination}'")
        self.first_key, self.second_key, self.destination = first_key, second_key, destination


class Worklist:
    """Numbered objects in the order they were added, each in one state; callable from any thread.

    A list that isn't `sealed` is not whole: it is planned anew. SQLite's connections don't survive a fork.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> Worklist:
        """Open the list in a job's folder, making both if there is none. Raises sqlite3.Error."""
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / WORKLIST):
            db = connect(folder / WORKLIST, durable=False)
            try:
                db.executescript(_SCHEMA)
            except BaseException:
                db.close()
                raise
            return cls(db)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the list can't be used afterwards. Safe to call twice."""
        with self._lock:
            self._db.close()

    # --- planning -------------------------------------------------------------------------------

    def add(self, items: Iterable[Selected]) -> None:
        """Append objects, to be done in that order; in large transactions. Raises Collision."""
        source = iter(items)
        while batch := list(itertools.islice(source, _BATCH)):
            with self._changing() as db:
                (last,) = db.execute("SELECT coalesce(max(n), 0) FROM items").fetchone()
                if db.executemany(_INSERT, map(_row, batch)).rowcount != len(batch):
                    raise self._collision(batch, last)

    def clear(self) -> None:
        """Throw away what was planned."""
        with self._changing() as db:
            db.execute("DELETE FROM items")
            db.execute("DELETE FROM facts")

    def seal(self) -> None:
        """Say that the list is whole."""
        self._set("sealed", 1)

    @property
    def sealed(self) -> bool:
        """Whether all objects were added."""
        return self._fact("sealed") == 1

    def settle(self, n: int, item: Selected) -> None:
        """Say what number `n` is, now that its choice, which failed at first, succeeded. Raises Collision."""
        with self._changing() as db:
            if not db.execute(_SETTLE, (item.size, item.etag, item.destination or None, n)).rowcount:
                raise self._collision([item], sys.maxsize)

    def left_out(self, count: int) -> None:
        """Keep how many objects of the source were left out before anything was done with them."""
        self._set("left_out", count)

    def overwritten(self) -> tuple[str, str] | None:
        """An object's key that is the destination of one of the list, after that one's key; None if there is none."""
        with self._lock:
            row = self._db.execute(
                "SELECT maker.key, taken.key FROM items AS taken JOIN items AS maker ON maker.destination = taken.key"
                " LIMIT 1"
            ).fetchone()
        return None if row is None else (str(row[0]), str(row[1]))

    def has_destination(self, key: str) -> bool:
        """Whether an object of the list is to become `key`."""
        with self._lock:
            row = self._db.execute("SELECT 1 FROM items WHERE destination = ?", (key,)).fetchone()
        return row is not None

    # --- doing ----------------------------------------------------------------------------------

    def pending(self, after_n: int = 0, limit: int = 1000) -> list[Item]:
        """The next objects to do, beginning beyond number `after_n`."""
        with self._lock:
            rows = self._db.execute(
                "SELECT n, key, size, etag, coalesce(destination, '') FROM items"
                " WHERE state = 'pending' AND n > ? ORDER BY n LIMIT ?",
                (after_n, limit),
            ).fetchall()
        return [Item(*row) for row in rows]

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """Keep what became of objects, in one transaction; what is decided already stays as it is."""
        rows = ((o.state, o.stage, o.code, o.message, o.bytes_in, o.bytes_out, o.n) for o in outcomes)
        with self._changing() as db:
            db.executemany(_NOTE, rows)

    def retry_failed(self, retries: int) -> bool:
        """For a job's retry number `retries`, have its failed objects done again, and none else; done once for each.

        Returns whether there is any to be done.
        """
        with self._changing() as db:
            row = db.execute("SELECT value FROM facts WHERE name = 'retries'").fetchone()
            if row is not None and row[0] >= retries:
                return self._has_pending(db)
            db.execute("UPDATE items SET state = 'left' WHERE state = 'pending'")
            db.execute("UPDATE items SET state = 'pending', stage = '', code = '', message = '' WHERE state = 'failed'")
            db.execute("INSERT OR REPLACE INTO facts VALUES ('retries', ?)", (retries,))
            return self._has_pending(db)

    def deleted(self, count: int) -> None:
        """Keep how many objects were removed from the destination because their source is gone."""
        self._set("deleted", count)

    # --- asking ---------------------------------------------------------------------------------

    def counts(self) -> Counts:
        """Objects and bytes so far; reads the whole list, so not for every batch."""
        with self._lock:
            rows = self._db.execute(
                "SELECT state, count(*), total(bytes_in), total(bytes_out) FROM items GROUP BY state"
            ).fetchall()
        by_state = {state: int(count) for state, count, _, _ in rows}
        left_out = self._fact("left_out")
        return Counts(
            total=sum(by_state.values()) + left_out,
            written=by_state.get("written", 0),
            unchanged=by_state.get("unchanged", 0),
            skipped=by_state.get("skipped", 0) + left_out,
            failed=by_state.get("failed", 0),
            deleted=self._fact("deleted"),
            bytes_in=int(sum(row[2] for row in rows)),
            bytes_out=int(sum(row[3] for row in rows)),
        )

    def errors(self, after: int = 0, limit: int = -1) -> list[JobError]:
        """The objects that failed, by their number, beginning beyond `after`; all of them unless there is a limit."""
        with self._lock:
            rows = self._db.execute(
                "SELECT key, stage, code, message, n FROM items WHERE state = 'failed' AND n > ? ORDER BY n LIMIT ?",
                (after, limit),
            ).fetchall()
        return [JobError(*row) for row in rows]

    # --- inside ---------------------------------------------------------------------------------

    def _collision(self, batch: list[Selected], last: int) -> Collision:
        """Say which two of a batch, or of it and the first `last` objects, have one destination."""
        taken: dict[str, str] = {}
        for item in filter(lambda item: item.destination, batch):
            row = self._db.execute(
                "SELECT key FROM items WHERE destination = ? AND n <= ?", (item.destination, last)
            ).fetchone()
            first = taken.get(item.destination) if row is None else str(row[0])
            if first is not None:
                return Collision(first, item.key, item.destination)
            taken[item.destination] = item.key
        raise AssertionError("a batch was refused in which no two objects have one destination")

    def _has_pending(self, db: sqlite3.Connection) -> bool:
        return db.execute("SELECT 1 FROM items WHERE state = 'pending' LIMIT 1").fetchone() is not None

    def _fact(self, name: str) -> int:
        with self._lock:
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return 0 if row is None else int(row[0])

    def _set(self, name: str, value: int) -> None:
        with self._changing() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, transaction(self._db) as db:
            yield db


def _row(item: Selected) -> tuple[str, int, str, str | None, str, str, str]:
    state = "failed" if item.code else "pending"
    return item.key, item.size, item.etag, item.destination or None, state, item.code, item.message
