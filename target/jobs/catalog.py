"""The catalog of offline jobs: one SQLite file that the server processes, the desk and the runners share.

It knows nothing of how a job is done, nor who may ask for one. Every method blocks and may be called from any thread.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import ValidationError

from transom.cluster.sqlite import alone, connect, sqlite_errors, transaction
from transom.cluster.stamp import Stamp
from transom.target.errors import JobBusy, NoSuchJob
from transom.target.jobs.order import Order, Place
from transom.target.jobs.records import ENDED, Counts, Job, JobError, JobState
from transom.target.jobs.worklist import WORKLIST, Worklist

JOBS, FOLDERS, STAMP = "jobs.sqlite", "jobs", "jobs.stamp"  # in a data folder
RECORDS = "records.sqlite"  # in a job's folder: what a sort is gone on with
MAX_MESSAGE_CHARS = 4000
UNREADABLE = "another version of Transom took this job, and this one can't read what was asked: ask for it again"
_ID_BYTES = 4
_FORGOTTEN = 200  # jobs at a time: whoever forgets has other things to do
_NEWEST = 2**63 - 1  # more than any number of a row
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, asked TEXT NOT NULL, owner TEXT NOT NULL, state TEXT NOT NULL,
    phase TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '', counts TEXT NOT NULL DEFAULT '{}',
    runs INTEGER NOT NULL DEFAULT 0, retries INTEGER NOT NULL DEFAULT 0, created_s REAL NOT NULL,
    started_s REAL NOT NULL DEFAULT 0, ended_s REAL NOT NULL DEFAULT 0, abort INTEGER NOT NULL DEFAULT 0,
    keys TEXT, key_count INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_state ON jobs (state, n);
"""
_LOST = Order(kind="inspect", source=Place(bucket="unknown"))  # stands for an order that can't be read
_COLUMNS = "id, asked, owner, state, phase, message, counts, runs, retries, created_s, started_s, ended_s, key_count"
_SELECT = f"SELECT {_COLUMNS} FROM jobs"  # noqa: S608


class JobCatalog:
    """One process's handle on the jobs of a data folder; whoever watches its stamp sees when there is work to start.

    An order's keys may be a million: only `claim` tells them; elsewhere its order has (), and the job their number.
    SQLite's connections don't survive a fork: close it before, and open one in the child.
    """

    def __init__(self, db: sqlite3.Connection, folders: Path, stamp: Stamp) -> None:
        self._db, self._folders, self._stamp = db, folders, stamp
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> JobCatalog:
        """Open the catalog of a data folder, making it if there is none. Raises CatalogError."""
        path = folder / JOBS
        with alone(path), sqlite_errors():
            db = connect(path)
            try:
                db.executescript(_SCHEMA)
                _fail_unreadable(db)
                return cls(db, folder / FOLDERS, Stamp(folder / STAMP))
            except BaseException:
                db.close()
                raise

    def close(self) -> None:
        """Close the file; the catalog can't be used afterwards. Safe to call twice."""
        with self._lock:
            self._db.close()

    def folder_of(self, job_id: str) -> Path:
        """Where a job has its worklist and what else it keeps."""
        return self._folders / job_id

    # --- asking ---------------------------------------------------------------------------------

    def stamp(self) -> bytes:
        """What changes with whatever is said of any job but its progress; quick."""
        return self._stamp.look()

    def get(self, job_id: str) -> Job:
        """Raises NoSuchJob."""
        with self._lock, sqlite_errors():
            row = self._db.execute(f"{_SELECT} WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise NoSuchJob(f"there is no job '{job_id}'; `transom job ls` lists those there are")
        return _job(row)

    def list(self) -> Sequence[Job]:
        """All jobs, the oldest first."""
        return self._jobs("ORDER BY n")

    def page(self, before: int | None, limit: int) -> tuple[Sequence[Job], int | None]:
        """Up to `limit` jobs, the newest first, and before which the next page begins; None where there is none."""
        with self._lock, sqlite_errors():
            rows = self._db.execute(
                f"SELECT {_COLUMNS}, n FROM jobs WHERE n < ? ORDER BY n DESC LIMIT ?",  # noqa: S608
                (_NEWEST if before is None else before, limit + 1),
            ).fetchall()
        more, rows = len(rows) > limit, rows[:limit]
        return [_job(row[:-1]) for row in rows], rows[-1][-1] if more else None

    def resumable(self) -> Sequence[Job]:
        """Those that wait or were begun, the oldest first."""
        return self._jobs("WHERE state IN ('queued', 'running') ORDER BY n")

    def abort_ordered(self, job_id: str) -> bool:
        """Whether a job is to be stopped."""
        with self._lock, sqlite_errors():
            row = self._db.execute("SELECT abort FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return row is not None and bool(row[0])

    def errors(self, job_id: str, after: int = 0, limit: int = -1) -> Sequence[JobError]:
        """A job's failed objects by their number, beginning beyond `after`. Raises NoSuchJob, CatalogError."""
        self.get(job_id)
        folder = self.folder_of(job_id)
        if not (folder / WORKLIST).exists():
            return []
        with sqlite_errors(), Worklist.open(folder) as worklist:
            return worklist.errors(after, limit)

    # --- ordering -------------------------------------------------------------------------------

    def add(self, order: Order, owner: str) -> Job:
        """Queue a job."""
        now_s = time.time()
        keys = None if order.keys is None else json.dumps(order.keys)
        shown = order if order.keys is None else order.model_copy(update={"keys": ()})
        job_id = secrets.token_hex(_ID_BYTES)
        with self._changing() as db:
            while db.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone():
                job_id = secrets.token_hex(_ID_BYTES)
            db.execute(
                "INSERT INTO jobs (id, asked, owner, state, created_s, keys, key_count)"
                " VALUES (?, ?, ?, 'queued', ?, ?, ?)",
                (job_id, shown.model_dump_json(), owner, now_s, keys, len(order.keys or ())),
            )
        return Job(job_id, shown, owner, created_s=now_s, keys=len(order.keys or ()))

    def order_abort(self, job_id: str) -> Job:
        """Have a job stopped; one that waits is at once. An ended one stays as it is. Raises NoSuchJob."""
        with self._changing() as db:
            db.execute("UPDATE jobs SET abort = 1 WHERE id = ? AND state = 'running'", (job_id,))
            db.execute(
                "UPDATE jobs SET state = 'aborted', ended_s = ? WHERE id = ? AND state = 'queued'",
                (time.time(), job_id),
            )
        return self.get(job_id)

    def retry(self, job_id: str) -> Job:
        """Queue a job again for the objects that it failed on. Raises NoSuchJob; JobBusy where it can't be."""
        job = self.get(job_id)
        if job.state in ENDED and not job.counts.failed:
            raise JobBusy(f"job '{job_id}' failed on no object: to do what is missing, start the same job anew")
        with self._changing() as db:
            changed = db.execute(
                "UPDATE jobs SET state = 'queued', phase = '', message = '', started_s = 0, ended_s = 0,"
                " abort = 0, retries = retries + 1 WHERE id = ? AND state IN ('done', 'failed', 'aborted')",
                (job_id,),
            ).rowcount
        if not changed:
            raise JobBusy(f"job '{job_id}' is {job.state}: wait for its end, or abort it, to try its errors again")
        return self.get(job_id)

    def remove(self, job_id: str) -> None:
        """Forget an ended job and its errors. Raises NoSuchJob, JobBusy."""
        job = self.get(job_id)
        with self._changing() as db:
            gone = db.execute(
                "DELETE FROM jobs WHERE id = ? AND state IN ('done', 'failed', 'aborted')", (job_id,)
            ).rowcount
        if not gone:
            raise JobBusy(f"job '{job_id}' is {job.state}: abort it before it is removed")
        shutil.rmtree(self.folder_of(job_id), ignore_errors=True)

    def forget(self, before_s: float) -> None:
        """Forget some of the jobs that ended before this time, and their errors: the oldest."""
        ended = "state IN ('done', 'failed', 'aborted') AND ended_s < ?"
        oldest = f"SELECT id FROM jobs WHERE {ended} ORDER BY n LIMIT {_FORGOTTEN}"  # noqa: S608
        with self._lock, sqlite_errors():
            ids = [row[0] for row in self._db.execute(oldest, (before_s,))]
        if not ids:
            return
        with self._changing() as db:  # what was tried again meanwhile stays
            delete = f"DELETE FROM jobs WHERE id = ? AND {ended}"  # noqa: S608
            gone = [job_id for job_id in ids if db.execute(delete, (job_id, before_s)).rowcount]
        for job_id in gone:
            shutil.rmtree(self.folder_of(job_id), ignore_errors=True)

    # --- running --------------------------------------------------------------------------------

    def claim(self, job_id: str) -> Job | None:
        """Begin a job, or begin it again; None if it has ended, or is gone."""
        with self._changing() as db:
            changed = db.execute(
                "UPDATE jobs SET state = 'running', runs = runs + 1, message = '', started_s ="
                " CASE started_s WHEN 0 THEN ?2 ELSE started_s END WHERE id = ?1 AND state IN ('queued', 'running')",
                (job_id, time.time()),
            ).rowcount
            row = db.execute("SELECT keys FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if not changed:
            return None
        job = self.get(job_id)
        if row[0] is None:
            return job
        return replace(job, order=job.order.model_copy(update={"keys": tuple(json.loads(row[0]))}))

    def progress(self, job_id: str, counts: Counts, phase: str) -> None:
        """Say what a running job has done, for whoever watches it: not waited for on the disk."""
        with self._lock, sqlite_errors():
            self._db.execute("PRAGMA synchronous = NORMAL")
            try:
                self._db.execute(
                    "UPDATE jobs SET counts = ?, phase = ? WHERE id = ? AND state = 'running'",
                    (json.dumps(asdict(counts)), phase, job_id),
                )
            finally:
                self._db.execute("PRAGMA synchronous = FULL")

    def finish(self, job_id: str, state: JobState, counts: Counts | None = None, message: str = "") -> None:
        """End a running job; without `counts` those last known stay. One that ended already stays as it is.

        What only a job that goes on needs is removed: it may be large.
        """
        for name in (RECORDS, f"{RECORDS}-journal"):
            with suppress(OSError):
                (self.folder_of(job_id) / name).unlink(missing_ok=True)
        with self._changing() as db:
            db.execute(
                "UPDATE jobs SET state = ?, phase = '', message = ?, counts = coalesce(?, counts), ended_s = ?,"
                " abort = 0 WHERE id = ? AND state IN ('queued', 'running')",
                (
                    state,
                    message[:MAX_MESSAGE_CHARS],
                    None if counts is None else json.dumps(asdict(counts)),
                    time.time(),
                    job_id,
                ),
            )

    def sweep(self) -> None:
        """Remove the folders of jobs that are gone."""
        known = {job.id for job in self.list()}
        for folder in self._folders.glob("*"):
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)

    # --- inside ---------------------------------------------------------------------------------

    def _jobs(self, rest: str) -> Sequence[Job]:
        with self._lock, sqlite_errors():
            rows = self._db.execute(f"{_SELECT} {rest}").fetchall()
        return [_job(row) for row in rows]

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, sqlite_errors():
            with transaction(self._db) as db:
                yield db
            self._stamp.renew()


def _fail_unreadable(db: sqlite3.Connection) -> None:
    """End the jobs that wait but whose order this version can't read: another version took it."""
    for job_id, asked in db.execute("SELECT id, asked FROM jobs WHERE state IN ('queued', 'running')").fetchall():
        if _read_order(asked) is None:
            db.execute(
                "UPDATE jobs SET state = 'failed', phase = '', message = ?, ended_s = ? WHERE id = ?",
                (UNREADABLE, time.time(), job_id),
            )


def _read_order(asked: str) -> Order | None:
    try:
        return Order.model_validate_json(asked)
    except ValidationError:
        return None


def _job(row: tuple[str, str, str, JobState, str, str, str, int, int, float, float, float, int]) -> Job:
    job_id, asked, owner, state, phase, message, counts, runs, retries, created_s, started_s, ended_s, keys = row
    order = _read_order(asked)
    return Job(
        job_id,
        order or _LOST,
        owner,
        state,
        phase,
        message if order else UNREADABLE,
        Counts(**json.loads(counts)),
        runs,
        retries,
        created_s,
        started_s,
        ended_s,
        keys,
    )
