"""Many objects put together in the local store: one sync for all, and what happens where that can't be trusted."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from transom.target.errors import NoSuchBucket, StoreFull
from transom.target.store.base import Attributes, ObjectInfo, Whole
from transom.target.store.local import LocalStore, changes, syncing, together
from transom.target.store.local.writer import Transaction

PLAIN = Attributes()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = LocalStore.at(tmp_path, threads=4)
    await store.create_bucket("b", owner="o")
    yield store
    await store.close()


def wholes(count: int, text: str = "data") -> list[Whole]:
    return [Whole(f"k{n}", f"{text} {n}".encode(), PLAIN) for n in range(count)]


def files(root: Path) -> list[Path]:
    return [path for path in (*(root / "blobs").glob("*/*/*"), *(root / "tmp").iterdir())]


def read(store: LocalStore, key: str) -> Callable[[], Any]:
    async def reading() -> bytes:
        reader = await store.open("b", key)
        try:
            return reader.read_at(0, reader.info.size)
        finally:
            reader.close()

    return reading


class Synced:
    """Counts what is synced, by whichever way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.all = self.each = 0
        self._fsync, self._sync_all = os.fsync, together.sync_all
        monkeypatch.setattr(together.os, "fsync", self._count_each)
        monkeypatch.setattr(together, "sync_all", self._count_all)

    def _count_each(self, fd: int) -> None:
        self.each += 1
        self._fsync(fd)

    def _count_all(self, fd: int) -> None:
        self.all += 1
        self._sync_all(fd)


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="syncfs is Linux's")
async def test_one_sync_and_one_folder_for_all(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    trusted = syncing.can_sync_all(fd)
    os.close(fd)
    if not trusted:
        pytest.skip("this file system's syncfs isn't trusted")
    await store.put_many("b", wholes(1))
    synced = Synced(monkeypatch)
    await store.put_many("b", wholes(50))
    assert (synced.all, synced.each) == (1, 0)
    folders = {path.parent for path in files(tmp_path)}
    assert len(folders) <= 2


async def test_each_is_synced_where_one_call_for_all_is_not_trusted(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_many("b", wholes(1))
    monkeypatch.setattr(together, "can_sync_all", lambda _: False)
    synced = Synced(monkeypatch)
    stored = await store.put_many("b", wholes(20))
    assert all(isinstance(info, ObjectInfo) for info in stored)
    assert synced.all == 0
    assert synced.each >= 21  # each blob, and their folder
    assert await read(store, "k19")() == b"data 19"


async def test_all_are_written_again_where_the_sync_of_all_fails(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(together, "can_sync_all", lambda _: True)
    synced = Synced(monkeypatch)
    monkeypatch.setattr(together, "sync_all", failing)
    stored = await store.put_many("b", wholes(20))
    assert all(isinstance(info, ObjectInfo) for info in stored)
    assert synced.each >= 21
    assert len(files(tmp_path)) == 20
    assert await read(store, "k7")() == b"data 7"


async def test_what_does_not_fit_is_refused_alone(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def small_disk(fd: int, data: bytes) -> int:
        if len(data) > 100:
            write(fd, bytes(data)[:50])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(together.os, "write", small_disk)
    asked = [Whole("small", b"x", PLAIN), Whole("large", b"x" * 101, PLAIN), Whole("empty", b"", PLAIN)]
    small, large, empty = await store.put_many("b", asked)
    assert isinstance(large, StoreFull)
    assert isinstance(small, ObjectInfo)
    assert isinstance(empty, ObjectInfo)
    assert len(files(tmp_path)) == 2


async def test_a_write_that_takes_less_than_it_was_given_goes_on(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(together.os, "write", lambda fd, data: write(fd, bytes(data)[:3]))
    await store.put_many("b", wholes(3, "longer than three"))
    assert await read(store, "k2")() == b"longer than three 2"


async def test_an_index_that_is_full_refuses_all_and_keeps_no_blob(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, __: Transaction) -> list[ObjectInfo]:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(changes.PutObjects, "__call__", full)
    stored = await store.put_many("b", wholes(5))
    assert [type(each) for each in stored] == [StoreFull] * 5
    await store.close()
    assert not files(tmp_path)


async def test_a_bucket_that_goes_meanwhile_refuses_all_and_keeps_no_blob(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store._index, "bucket", lambda _: None)
    with pytest.raises(NoSuchBucket):
        await store.put_many("other", wholes(5))
    await store.close()
    assert not files(tmp_path)


async def test_a_caller_that_is_cancelled_leaves_nothing(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = threading.Event(), threading.Event()
    sync_all = together.sync_all

    def slow(fd: int) -> None:
        writing.set()
        assert go_on.wait(20)
        sync_all(fd)

    monkeypatch.setattr(together, "can_sync_all", lambda _: True)
    monkeypatch.setattr(together, "sync_all", slow)
    task = asyncio.ensure_future(store.put_many("b", wholes(5)))
    assert await asyncio.to_thread(writing.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await store.close()
    assert not files(tmp_path)


async def test_two_stores_put_many_into_one_folder(store: LocalStore, tmp_path: Path) -> None:
    other = LocalStore.at(tmp_path, threads=4)
    try:
        await asyncio.gather(*(each.put_many("b", wholes(30, f"{n}")) for n, each in enumerate((store, other) * 5)))
        texts = {(await read(store, f"k{n}")()).split()[0] for n in range(30)}
        assert len(texts) == 1  # one batch after the other, never mixed
    finally:
        await other.close()
    await store.close()
    assert len(files(tmp_path)) == 30


def test_whether_one_sync_is_enough_is_asked_of_kernel_and_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        monkeypatch.setattr(syncing, "_TRUSTED", {})
        assert not syncing.can_sync_all(fd)
        monkeypatch.undo()
        monkeypatch.setattr(syncing, "_kernel", lambda: (5, 7))
        syncing._calls.cache_clear()
        assert not syncing.can_sync_all(fd)
    finally:
        monkeypatch.undo()
        syncing._calls.cache_clear()
        os.close(fd)
    with pytest.raises(OSError, match="descriptor"):
        syncing.sync_all(fd)
