"""The result cache: bounded, on disk, shared by every process of a data folder.

A result is a file named by its id and a row in an index. The row is written after the file is whole, so a row is
always true; files are not fsynced, so the cache empties itself when the machine was restarted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transom.cluster.stamp import Stamp

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (
  id TEXT PRIMARY KEY, base TEXT NOT NULL, generation INTEGER NOT NULL, size INTEGER NOT NULL,
  content_type TEXT NOT NULL, made_s REAL NOT NULL, used_s REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS results_used ON results (used_s);
CREATE INDEX IF NOT EXISTS results_base ON results (base);
CREATE TABLE IF NOT EXISTS refusals (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, message TEXT NOT NULL, until_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS generations (
  base TEXT PRIMARY KEY, current INTEGER NOT NULL, spent INTEGER NOT NULL, named_s REAL NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS results_new AFTER INSERT ON results BEGIN
  UPDATE meta SET value = CAST(value AS INTEGER) + new.size WHERE name = 'bytes'; END;
CREATE TRIGGER IF NOT EXISTS results_old AFTER DELETE ON results BEGIN
  UPDATE meta SET value = CAST(value AS INTEGER) - old.size WHERE name = 'bytes'; END;
"""
_LOOK = """
SELECT 1, size, content_type FROM results WHERE id = ?1
UNION ALL SELECT 0, kind, message FROM refusals WHERE id = ?1 AND until_s > ?2
"""
_EVICTABLE = """
SELECT id, size FROM results LEFT JOIN generations USING (base)
WHERE current IS NULL OR generation <> current OR named_s < ? ORDER BY used_s
"""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MEMORY_ROWS = 4096
_TOUCH_EVERY_S = 60.0
NAMED_FOR_S = 600.0


@dataclass(frozen=True, slots=True)
class Result:
    """A finished result: `size` in bytes, `path` of the file that holds it."""

    id: str
    size: int
    content_type: str
    path: Path


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a transformer said instead of a result: `kind` is "skip" or "reject"."""

    kind: str
    message: str


class Results:
    """The cache's index and files. `get` is for the event loop; what writes may block and belongs in a thread."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._write_lock = threading.Lock()
        self._recent: OrderedDict[str, tuple[Result, float]] = OrderedDict()
        self._touched: dict[str, float] = {}
        self._absent: set[str] = set()
        # SQLite doesn't wait when two processes switch a new file to WAL: one at a time, then
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._read = _connect(folder / "index.sqlite")
            self._write = _connect(folder / "index.sqlite")
            self._added = Stamp(folder / "stamp")
            self._prepare()
        self.scratch_folder = folder / "tmp"
        self.scratch_folder.mkdir(exist_ok=True)

    def is_absent(self, result_id: str) -> bool:
        """Whether `get` found nothing lately, and nobody has added or refused any result since; for the event loop.

        It costs no look into the index. A process killed just after it added something may go unseen for a moment.
        """
        return self._added.fresh() and result_id in self._absent

    def get(self, result_id: str) -> Result | Refusal | None:
        """Look a finished result up, or what the transformer refused it with, if that is remembered still."""
        known = self._recent.get(result_id)
        now = time.time()
        if known is not None and now - known[1] < _TOUCH_EVERY_S:
            with contextlib.suppress(KeyError):  # another thread has just evicted it
                self._recent.move_to_end(result_id)
            return known[0]
        if len(self._absent) >= _MEMORY_ROWS or not self._added.fresh():
            self._absent.clear()
            self._added.note()
        row = self._read.execute(_LOOK, (result_id, now)).fetchone()
        if row is not None and row[0]:
            result = Result(result_id, row[1], row[2], self.path(result_id))
            self._remember(result, now)
            return result
        self._recent.pop(result_id, None)
        if row is not None:
            return Refusal(row[1], row[2])
        self._absent.add(result_id)
        return None

    def path(self, result_id: str) -> Path:
        """Where the result's file is, or would be."""
        return self._folder / result_id[:2] / result_id

    def scratch(self, name: str) -> Path:
        """A path for a file being written; what a killed process leaves there is swept."""
        return self.scratch_folder / f"{name}.{os.getpid()}.{time.monotonic_ns()}"

    def forget(self, result_id: str) -> None:
        """Drop a result whose file is gone or wrong."""
        self._recent.pop(result_id, None)
        with self._writing() as db:
            db.execute("DELETE FROM results WHERE id = ?", (result_id,))
        self.path(result_id).unlink(missing_ok=True)

    def add(self, result_id: str, written: Path, *, base: str, generation: int, content_type: str) -> Result:
        """Take over a finished file as the result. Blocking."""
        size = written.stat().st_size
        path = self.path(result_id)
        path.parent.mkdir(exist_ok=True)
        written.replace(path)
        now = time.time()
        with self._writing(adds=True) as db:
            db.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?)",
                (result_id, base, generation, size, content_type, now, now),
            )
            # a generation that was made can't be made again: its bytes are gone once the row is
            db.execute("UPDATE generations SET spent = max(spent, ?) WHERE base = ?", (generation, base))
        self._shrink()
        return Result(result_id, size, content_type, path)

    def refuse(self, result_id: str, refusal: Refusal, for_s: float) -> None:
        """Remember for a while that the transformer left this object out or could not use it. Blocking."""
        now = time.time()
        with self._writing(adds=True) as db:
            db.execute("DELETE FROM refusals WHERE until_s < ?", (now,))
            db.execute(
                "INSERT OR REPLACE INTO refusals VALUES (?, ?, ?, ?)",
                (result_id, refusal.kind, refusal.message, now + for_s),
            )

    # --- generations of non-deterministic results ---------------------------------------------

    def generation(self, base: str) -> int:
        """The current generation: 0 before any. One that was made and evicted counts as over."""
        row = self._read.execute("SELECT current, spent FROM generations WHERE base = ?", (base,)).fetchone()
        if row is None:
            return 0
        return int(row[0]) + (1 if row[1] >= row[0] and not self._made(self._read, base, row[0]) else 0)

    def name_generation(self, base: str) -> int:
        """The current generation, pinned: a HEAD or a range speaks of it. Blocking."""
        return self._turn(base, fresh=False)

    def next_generation(self, base: str) -> int:
        """The generation a plain GET reads: a new one unless the current one is pinned or unmade. Blocking."""
        return self._turn(base, fresh=True)

    def generation_of(self, base: str, result_ids: frozenset[str]) -> int | None:
        """The kept generation whose id is among `result_ids`, or None."""
        for result_id, generation in self._read.execute("SELECT id, generation FROM results WHERE base = ?", (base,)):
            if result_id in result_ids:
                return int(generation)
        return None

    def close(self) -> None:
        """Close the index; a thread that is writing ends that first, and can't write again."""
        self._write_touches()
        self._read.close()
        with self._write_lock:
            self._write.close()
            self._added.close()

    # --- inside -------------------------------------------------------------------------------

    def _turn(self, base: str, *, fresh: bool) -> int:
        now = time.time()
        with self._writing() as db:
            row = db.execute("SELECT current, spent, named_s FROM generations WHERE base = ?", (base,)).fetchone()
            current, spent, named_s = row or (0, -1, 0.0)
            made = spent >= current
            gone = made and not self._made(db, base, current)
            if gone or (fresh and made and now - named_s > NAMED_FOR_S):
                current, named_s = current + 1, 0.0
            if not fresh:
                named_s = now
            db.execute("INSERT OR REPLACE INTO generations VALUES (?, ?, ?, ?)", (base, current, spent, named_s))
            return int(current)

    @staticmethod
    def _made(db: sqlite3.Connection, base: str, generation: int) -> bool:
        found = db.execute("SELECT 1 FROM results WHERE base = ? AND generation = ?", (base, generation)).fetchone()
        return found is not None

    def _remember(self, result: Result, now: float) -> None:
        self._recent[result.id] = (result, now)
        if len(self._recent) > _MEMORY_ROWS:
            self._recent.popitem(last=False)
        self._touched[result.id] = now
        if len(self._touched) > _MEMORY_ROWS // 8:
            threading.Thread(target=self._write_touches, daemon=True).start()

    def _write_touches(self) -> None:
        touched, self._touched = self._touched, {}
        with self._writing() as db:
            db.executemany(
                "UPDATE results SET used_s = ? WHERE id = ?", [(used, result_id) for result_id, used in touched.items()]
            )

    def _shrink(self) -> None:
        """Evict the least recently used results until the files fit the bound again.

        A current generation that somebody was told of stays: its bytes can't be made again, and the rest of them
        may be asked for any moment.
        """
        total = self._total()
        if total <= self._max_bytes:
            return
        self._write_touches()
        victims: list[str] = []
        with self._writing() as db:
            for result_id, size in db.execute(_EVICTABLE, (time.time() - NAMED_FOR_S,)).fetchall():
                if total <= self._max_bytes * 0.9:
                    break
                total -= size
                victims.append(result_id)
            db.executemany("DELETE FROM results WHERE id = ?", ((v,) for v in victims))
        for victim in victims:
            self._recent.pop(victim, None)
            self.path(victim).unlink(missing_ok=True)

    def _total(self) -> int:
        with self._write_lock:
            return int(self._write.execute("SELECT value FROM meta WHERE name = 'bytes'").fetchone()[0])

    @contextlib.contextmanager
    def _writing(self, *, adds: bool = False) -> Iterator[sqlite3.Connection]:
        with self._write_lock:
            self._write.execute("BEGIN IMMEDIATE")
            try:
                yield self._write
            except BaseException:
                self._write.execute("ROLLBACK")
                raise
            self._write.execute("COMMIT")
            if adds:
                self._added.renew()

    def _prepare(self) -> None:
        boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
        with self._write_lock:
            self._write.executescript(_SCHEMA)
        with self._writing() as db:
            row = db.execute("SELECT value FROM meta WHERE name = 'boot'").fetchone()
            if row is not None and row[0] == boot:
                return
            # what was written before a restart of the machine may not have reached the disk
            for folder in self._folder.iterdir():
                if folder.is_dir():
                    shutil.rmtree(folder, ignore_errors=True)
            db.execute("DELETE FROM results")
            db.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?), ('bytes', '0')", (boot,))


def sweep(folder: Path) -> None:
    """Remove what killed runs left; only for a start, when nothing else uses the folder."""
    shutil.rmtree(folder / "tmp", ignore_errors=True)


def sweep_after(folder: Path, pid: int) -> None:
    """Remove what the runs of one process left that is gone; the others go on."""
    for left in (folder / "tmp").glob(f"*.{pid}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA recursive_triggers = ON")  # so that REPLACE counts what it replaces
    return db
