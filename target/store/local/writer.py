"""The one thread a process writes the index with: changes that wait together are committed together.

It knows nothing of what a change does. A change may refuse by raising: only its own savepoint is rolled back.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from transom.target.errors import StoreFull
from transom.target.store.local.schema import connect

T = TypeVar("T")
GROUP = 512
HOUSEKEEPING_S = 60.0
_log = logging.getLogger("transom.store")


@dataclass(slots=True)
class Transaction:
    """What a change works with; it adds blobs to unlink once it is committed to `retired`."""

    db: sqlite3.Connection
    now_ns: int
    retired: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class _Request:
    change: Callable[[Transaction], Any]
    adopts: Sequence[bytes]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None
    in_doubt: bool = False


class IndexWriter:
    """Commits changes in groups, one process at a time; `discard` unlinks blobs (from a thread of its choosing).

    `committed` is called after each commit, before anybody hears of it and before anything is unlinked; `housekeep`
    every `housekeeping_s`, however busy the writer is. Neither may take long.
    """

    def __init__(
        self,
        path: Path,
        lock: Path,
        discard: Callable[[Sequence[bytes], Callable[[], None]], None],
        committed: Callable[[], None] = lambda: None,
        housekeep: Callable[[], object] = lambda: None,
        *,
        housekeeping_s: float = HOUSEKEEPING_S,
    ) -> None:
        self._path = path
        self._discard = discard
        self._committed = committed
        self._also_housekeep = housekeep
        self._housekeeping_s = housekeeping_s
        self._due_s = time.monotonic() + housekeeping_s
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._unlinked: queue.SimpleQueue[Sequence[bytes]] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="transom-index", daemon=True)
        self._thread.start()

    async def apply(self, change: Callable[[Transaction], T], *, adopts: Sequence[bytes] = ()) -> T:
        """Return what `change` returns once it is durable, or raise what it raises.

        The blobs it `adopts` are the writer's from the call on: a refused change has them unlinked, and a caller
        that is cancelled meanwhile has nothing to clean up.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._gate:
            if self._closing:
                raise RuntimeError("the store is closed")
            self._queue.put(_Request(change, adopts, loop, future))
        return await future

    def close(self) -> None:
        """Commit what waits, then stop; blocks. Safe to call twice."""
        with self._gate:
            if self._closing:
                return
            self._closing = True
            self._queue.put(None)
        self._thread.join()
        os.close(self._lock)

    def _run(self) -> None:
        db = connect(self._path)
        try:
            more = True
            while more:
                more = self._turn(db)
        finally:
            db.close()

    def _turn(self, db: sqlite3.Connection) -> bool:
        if time.monotonic() >= self._due_s:
            self._housekeep(db)
        try:
            first = self._queue.get(timeout=max(self._due_s - time.monotonic(), 0.0))
        except queue.Empty:
            return True
        if first is None:
            return False
        with self._alone():
            group, more = self._gather(first)
            retired = self._commit(db, group)
        self._committed()
        self._settle(group)
        self._unlink(retired)
        return more

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold off other processes: SQLite's own waiting polls, a file lock wakes at once."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _gather(self, first: _Request) -> tuple[list[_Request], bool]:
        group = [first]
        with contextlib.suppress(queue.Empty):
            while len(group) < GROUP:
                request = self._queue.get_nowait()
                if request is None:
                    return group, False
                group.append(request)
        return group, True

    def _commit(self, db: sqlite3.Connection, group: list[_Request]) -> list[bytes]:
        """Apply a group in one transaction; returns the blobs to unlink."""
        retired: list[bytes] = []
        certain = True  # that a failure means nothing was committed
        try:
            db.execute("BEGIN IMMEDIATE")
            self._forget_unlinked(db)
            now_ns = time.time_ns()
            for request in group:
                retired += self._attempt(db, request, now_ns)
            certain = False
            db.execute("COMMIT")
        except Exception as error:
            _log.exception("the index could not be written")
            retired.clear()
            _roll_back(db, group, error, certain=certain or _code(error) == sqlite3.SQLITE_FULL)
        for request in group:
            if request.error is not None and not request.in_doubt:
                retired.extend(request.adopts)
        return retired

    def _attempt(self, db: sqlite3.Connection, request: _Request, now_ns: int) -> list[bytes]:
        """Apply one change in a savepoint; only a broken transaction escapes."""
        transaction = Transaction(db, now_ns)
        db.execute("SAVEPOINT change")
        try:
            request.result = request.change(transaction)
        except Exception as error:  # whatever a change raises is its caller's
            if not db.in_transaction:  # SQLite rolled all of it back: the disk is full, or worse
                raise
            db.execute("ROLLBACK TO change")
            transaction.retired.clear()
            request.error = _refusal(error)
        db.execute("RELEASE change")
        return transaction.retired

    def _settle(self, group: list[_Request]) -> None:
        """Wake the callers, each event loop once."""
        for loop in {request.loop for request in group}:
            mine = [request for request in group if request.loop is loop]
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(_resolve, mine)

    def _unlink(self, blob_ids: list[bytes]) -> None:
        if blob_ids:
            self._discard(blob_ids, lambda: self._unlinked.put(blob_ids))

    def _forget_unlinked(self, db: sqlite3.Connection) -> None:
        """Drop the rows of blobs that are gone by now, riding on a commit that happens anyway."""
        with contextlib.suppress(queue.Empty):
            while True:
                gone = self._unlinked.get_nowait()
                db.executemany("DELETE FROM blobs WHERE id = ? AND due_ns IS NOT NULL", [(blob,) for blob in gone])

    def _housekeep(self, db: sqlite3.Connection) -> None:
        """Unlink blobs whose time has come: big objects' after their grace, those that a dead process left."""
        self._due_s = time.monotonic() + self._housekeeping_s
        self._also_housekeep()
        try:
            rows = db.execute("SELECT id FROM blobs WHERE due_ns <= ? LIMIT 10000", (time.time_ns(),)).fetchall()
        except sqlite3.Error:
            _log.exception("housekeeping has to wait")
            return
        if rows or not self._unlinked.empty():
            with self._alone():
                self._commit(db, [])
        self._unlink([row[0] for row in rows])


def _resolve(requests: list[_Request]) -> None:
    for request in requests:
        if request.future.done():
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.result)


def _roll_back(db: sqlite3.Connection, group: list[_Request], error: Exception, *, certain: bool) -> None:
    """Fail a whole group. After an I/O error in the commit itself only the next start's sweep can tell."""
    with contextlib.suppress(sqlite3.Error):
        db.execute("ROLLBACK")
    for request in group:
        request.error = request.error or _refusal(error)
        request.in_doubt = not certain


def _refusal(error: Exception) -> Exception:
    return StoreFull("The disk is full.") if _code(error) == sqlite3.SQLITE_FULL else error


def _code(error: Exception) -> int | None:
    return getattr(error, "sqlite_errorcode", None)
