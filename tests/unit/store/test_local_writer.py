"""The index writer: groups, refusals, two processes' worth of writers, and a full disk."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from transom.target.errors import NoSuchKey, StoreFull
from transom.target.store.local.schema import connect
from transom.target.store.local.writer import IndexWriter, Transaction


class Discarded:
    """Takes blobs to be unlinked."""

    def __init__(self) -> None:
        self.ids: list[bytes] = []
        self.any = threading.Event()

    def __call__(self, blob_ids: Sequence[bytes], then: Callable[[], None]) -> None:
        self.ids += blob_ids
        then()
        self.any.set()


@pytest.fixture
def discarded() -> Discarded:
    return Discarded()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "index.sqlite"
    db = connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
    db.execute("CREATE TABLE blobs (id BLOB PRIMARY KEY, due_ns INTEGER)")
    db.close()
    return path


@pytest.fixture
def writer(path: Path, discarded: Discarded) -> Iterator[IndexWriter]:
    writer = IndexWriter(path, path.with_name("lock"), discarded)
    yield writer
    writer.close()


def numbers(path: Path) -> list[int]:
    db = sqlite3.connect(path)
    try:
        return [row[0] for row in db.execute("SELECT n FROM numbers ORDER BY n")]
    finally:
        db.close()


def insert(number: int) -> Callable[[Transaction], int]:
    def change(transaction: Transaction) -> int:
        transaction.db.execute("INSERT INTO numbers VALUES (?)", (number,))
        return number

    return change


def insert_then_refuse(number: int) -> Callable[[Transaction], None]:
    def change(transaction: Transaction) -> None:
        insert(number)(transaction)
        transaction.retired.append(b"never retired")
        raise NoSuchKey("no")

    return change


async def test_a_refusal_does_not_touch_the_rest_of_its_group(writer: IndexWriter, path: Path) -> None:
    changes = [insert_then_refuse(n) if n % 3 == 0 else insert(n) for n in range(30)]
    results = await asyncio.gather(*(writer.apply(change) for change in changes), return_exceptions=True)
    assert [n for n, result in enumerate(results) if isinstance(result, NoSuchKey)] == list(range(0, 30, 3))
    assert numbers(path) == [n for n in range(30) if n % 3]


async def test_what_waits_together_is_committed_together(writer: IndexWriter, path: Path) -> None:
    began, go_on = threading.Event(), threading.Event()

    def first(transaction: Transaction) -> int:
        began.set()
        assert go_on.wait(10)
        return transaction.now_ns

    def when(transaction: Transaction) -> int:
        return transaction.now_ns

    leading = asyncio.create_task(writer.apply(first))
    await asyncio.to_thread(began.wait)
    following = [asyncio.create_task(writer.apply(when)) for _ in range(50)]
    await asyncio.sleep(0)
    go_on.set()
    assert len({await task for task in following}) == 1
    assert await leading not in {task.result() for task in following}


async def test_a_refused_change_gives_up_what_it_adopted(writer: IndexWriter, discarded: Discarded) -> None:
    await writer.apply(insert(1), adopts=[b"kept"])
    with pytest.raises(NoSuchKey):
        await writer.apply(insert_then_refuse(2), adopts=[b"given up"])
    await asyncio.to_thread(discarded.any.wait, 10)
    assert discarded.ids == [b"given up"]


async def test_a_caller_that_leaves_changes_nothing_of_the_outcome(writer: IndexWriter, path: Path) -> None:
    task = asyncio.create_task(writer.apply(insert(1)))
    await asyncio.sleep(0)
    task.cancel()
    await writer.apply(insert(2))
    assert task.cancelled()
    assert numbers(path) == [1, 2]


async def test_two_writers_of_one_index_take_turns(writer: IndexWriter, path: Path, discarded: Discarded) -> None:
    other = IndexWriter(path, path.with_name("lock"), discarded)
    work = [(writer if n % 2 else other).apply(insert(n)) for n in range(200)]
    await asyncio.gather(*work)
    other.close()
    assert numbers(path) == list(range(200))


async def test_a_full_disk_refuses_and_the_next_change_goes_on(
    writer: IndexWriter, path: Path, discarded: Discarded
) -> None:
    def fill(transaction: Transaction) -> None:
        pages = transaction.db.execute("PRAGMA page_count").fetchone()[0]
        transaction.db.execute(f"PRAGMA max_page_count = {pages}")
        transaction.db.executemany("INSERT INTO blobs VALUES (?, NULL)", [(b"%1000d" % n,) for n in range(100)])

    def more_room(transaction: Transaction) -> None:
        transaction.db.execute("PRAGMA max_page_count = 1000000")

    with pytest.raises(StoreFull):
        await writer.apply(fill, adopts=[b"blob"])
    await writer.apply(more_room)
    assert await writer.apply(insert(1)) == 1
    await asyncio.to_thread(discarded.any.wait, 10)
    assert discarded.ids == [b"blob"]


async def test_a_broken_transaction_fails_its_group_and_no_other(
    writer: IndexWriter, path: Path, discarded: Discarded
) -> None:
    def break_it(transaction: Transaction) -> None:
        transaction.db.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    broken = [writer.apply(insert(1), adopts=[b"one"]), writer.apply(break_it)]
    results = await asyncio.gather(*broken, return_exceptions=True)
    assert isinstance(results[1], sqlite3.OperationalError)
    assert await writer.apply(insert(2)) == 2
    assert numbers(path) == ([1, 2] if results[0] == 1 else [2])
    assert discarded.ids == ([] if results[0] == 1 else [b"one"])


async def test_a_busy_writer_keeps_house_too(path: Path, discarded: Discarded) -> None:
    kept = threading.Event()
    writer = IndexWriter(path, path.with_name("lock"), discarded, housekeep=kept.set, housekeeping_s=0.3)
    try:
        await writer.apply(lambda transaction: transaction.db.execute("INSERT INTO blobs VALUES (X'01', 1)") and None)
        for number in range(100_000):  # never idle for so long
            await writer.apply(insert(number))
            if kept.is_set() and discarded.any.is_set():
                break
    finally:
        writer.close()
    assert kept.is_set()
    assert discarded.ids[:1] == [b"\1"]


async def test_an_idle_writer_keeps_house(path: Path, discarded: Discarded) -> None:
    kept = threading.Semaphore(0)
    writer = IndexWriter(path, path.with_name("lock"), discarded, housekeep=kept.release, housekeeping_s=0.01)
    for _ in range(3):
        assert await asyncio.to_thread(kept.acquire, timeout=10)
    writer.close()


async def test_a_closed_writer_refuses(writer: IndexWriter) -> None:
    writer.close()
    writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        await writer.apply(insert(1))
