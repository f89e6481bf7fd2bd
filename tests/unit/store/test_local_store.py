"""What the local store does beyond the store suite: durability, sharing, links, grace, and a full disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from transom.target.errors import NoSuchKey, PreconditionFailed, SourceChanged, StoreFull
from transom.target.store.base import Attributes, WriteCondition
from transom.target.store.conformance import body_of, failing_body
from transom.target.store.local import LocalStore
from transom.target.store.local.blobs import BlobFolder, BlobWriter
from transom.target.store.local.changes import EAGER_PIECES

PLAIN = Attributes()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = LocalStore.at(tmp_path, threads=4, min_part_size=1)
    await store.create_bucket("b", owner="o")
    yield store
    await store.close()


def blob_files(root: Path) -> list[Path]:
    return list((root / "blobs").glob("*/*/*"))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def read_all(store: LocalStore, key: str) -> bytes:
    reader = await store.open("b", key)
    try:
        return b"".join([chunk async for chunk in reader.chunks()])
    finally:
        reader.close()


async def put_in_parts(store: LocalStore, key: str, count: int) -> bytes:
    upload = await store.create_upload("b", key, PLAIN)
    bodies = [b"%05d" % number for number in range(count)]
    parts = await asyncio.gather(
        *(store.put_part("b", key, upload.upload_id, n, body_of(data)) for n, data in enumerate(bodies, start=1))
    )
    await store.complete_upload("b", key, upload.upload_id, [(part.number, part.etag) for part in parts])
    return b"".join(bodies)


async def test_everything_is_there_after_reopening(store: LocalStore, tmp_path: Path) -> None:
    attributes = Attributes(content={"content-type": "a/b"}, metadata={"m": "ü"}, tags={"t": ""}, owner="o", acl="x")
    made = await store.put("b", "k", body_of(b"data"), attributes)
    data = await put_in_parts(store, "parts", 3)
    upload = await store.create_upload("b", "k", attributes)
    await store.close()
    again = LocalStore.at(tmp_path)
    assert await again.head("b", "k") == made
    assert await read_all(again, "k") == b"data"
    assert await read_all(again, "parts") == data
    assert [part.size for part in (await again.head("b", "parts")).parts] == [5, 5, 5]
    assert await again.upload("b", "k", upload.upload_id) == upload
    await again.close()


async def test_two_stores_share_a_folder(store: LocalStore, tmp_path: Path) -> None:
    other = LocalStore.at(tmp_path, threads=4)
    await store.put("b", "k", body_of(b"one"), PLAIN)
    assert await read_all(other, "k") == b"one"
    await other.put("b", "k", body_of(b"two"), PLAIN)
    assert await read_all(store, "k") == b"two"
    await other.delete("b", "k")
    with pytest.raises(NoSuchKey):
        await store.head("b", "k")
    await other.close()


async def test_what_one_store_changes_the_other_remembers_no_longer(store: LocalStore, tmp_path: Path) -> None:
    other = LocalStore.at(tmp_path, threads=2, min_part_size=1)
    try:
        await store.put("b", "k", body_of(b"0"), PLAIN)
        for n in range(1, 30):
            assert (await store.head("b", "k")).etag == (await other.head("b", "k")).etag  # both remember it now
            changing, reading = (store, other) if n % 2 else (other, store)
            await changing.put("b", "k", body_of(b"%d" % n), PLAIN)
            assert await read_all(reading, "k") == b"%d" % n
            await changing.update("b", "k", tags={"n": str(n)})
            assert (await reading.head("b", "k")).attributes.tags == {"n": str(n)}
        await other.delete("b", "k")
        with pytest.raises(NoSuchKey):
            await store.head("b", "k")
    finally:
        await other.close()


async def test_of_two_stores_conditional_puts_one_wins(store: LocalStore, tmp_path: Path) -> None:
    other = LocalStore.at(tmp_path, threads=4)

    async def attempt(number: int) -> bool:
        chosen = store if number % 2 else other
        condition = WriteCondition(if_none_match_any=True)
        try:
            await chosen.put("b", "k", body_of(b"%d" % number), PLAIN, condition=condition)
        except PreconditionFailed:
            return False
        return True

    assert sum(await asyncio.gather(*map(attempt, range(40)))) == 1
    await other.close()


async def test_readers_of_a_key_that_is_overwritten_all_the_time(store: LocalStore, tmp_path: Path) -> None:
    """Each sees one version, whole: a blob that goes between lookup and open is looked up again."""
    other = LocalStore.at(tmp_path, threads=4)
    await store.put("b", "k", body_of(b"0" * 1000), PLAIN)

    async def overwrite() -> None:
        for number in range(60):
            await store.put("b", "k", body_of(b"%d" % (number % 10) * 1000), PLAIN)

    writing = asyncio.create_task(overwrite())
    while not writing.done():
        data = await read_all(other, "k")
        assert len(data) == 1000
        assert len(set(data)) == 1
        await asyncio.sleep(0)
    await writing
    await other.close()


async def test_a_blob_that_is_lost_is_an_error_not_a_loop(store: LocalStore, tmp_path: Path) -> None:
    await store.put("b", "k", body_of(b"data"), PLAIN)
    blob_files(tmp_path)[0].unlink()
    with pytest.raises(SourceChanged):
        await store.open("b", "k")


async def test_a_truncated_blob_is_never_served_as_whole(store: LocalStore, tmp_path: Path) -> None:
    await store.put("b", "k", body_of(b"data" * 1000), PLAIN)
    blob = blob_files(tmp_path)[0]
    blob.chmod(0o600)
    os.truncate(blob, 100)
    with pytest.raises(SourceChanged):
        await read_all(store, "k")
    reader = await store.open("b", "k")
    with pytest.raises(SourceChanged):
        reader.read_at(0, 4000)
    reader.close()


async def test_blobs_are_unlinked_once_nothing_names_them(store: LocalStore, tmp_path: Path) -> None:
    await store.put("b", "k", body_of(b"one"), PLAIN)
    await store.put("b", "k", body_of(b"two"), PLAIN)
    await put_in_parts(store, "k", 3)
    await store.put("b", "k", body_of(b"three"), PLAIN)
    with pytest.raises(PreconditionFailed):
        await store.put("b", "k", body_of(b"x"), PLAIN, condition=WriteCondition(if_none_match_any=True))
    with pytest.raises(ConnectionResetError):
        await store.put("b", "k", failing_body(b"x" * 2_000_000, b"y"), PLAIN)
    await store.close()
    assert [path.read_bytes() for path in blob_files(tmp_path)] == [b"three"]
    assert not list((tmp_path / "tmp").iterdir())


async def test_a_path_outlives_the_key_and_goes_with_the_reader(store: LocalStore, tmp_path: Path) -> None:
    await store.put("b", "k", body_of(b"data"), PLAIN)
    reader = await store.open("b", "k")
    path = reader.path
    assert path is not None
    assert reader.path == path
    await store.delete("b", "k")
    assert path.read_bytes() == b"data"
    assert path.stat().st_mode & 0o222 == 0
    reader.close()
    assert not path.exists()
    assert reader.path is None


async def test_a_path_outlives_its_store(store: LocalStore, tmp_path: Path) -> None:
    """Nobody removes what a live process may use, though its store is closed."""
    await store.put("b", "k", body_of(b"data"), PLAIN)
    other = LocalStore.at(tmp_path, threads=1)
    reader = await store.open("b", "k")
    path = reader.path
    assert path is not None
    await store.close()
    await other.close()  # which sweeps
    assert path.read_bytes() == b"data"
    reader.close()
    assert not path.exists()


async def test_no_path_where_no_single_file_holds_the_object(store: LocalStore) -> None:
    await put_in_parts(store, "parts", 2)
    await put_in_parts(store, "part", 1)
    several, one = await store.open("b", "parts"), await store.open("b", "part")
    assert several.path is None
    assert one.path is not None
    several.close()
    one.close()


async def test_of_many_parts_few_are_open_and_all_outlive_the_key(store: LocalStore, tmp_path: Path) -> None:
    data = await put_in_parts(store, "k", EAGER_PIECES + 6)
    reader = await store.open("b", "k")
    before = open_files()
    await store.put("b", "k", body_of(b"new"), PLAIN)
    assert reader.read_at(12, 200) == data[12:212]
    assert b"".join([chunk async for chunk in reader.chunks()]) == data
    assert open_files() <= before + 5
    reader.close()
    await store.close()
    assert len(blob_files(tmp_path)) == EAGER_PIECES + 7
    await LocalStore.at(tmp_path).close()
    assert len(blob_files(tmp_path)) == 1  # alone again, it needs no grace


async def test_parts_are_a_sequence(store: LocalStore) -> None:
    await put_in_parts(store, "k", 4)
    parts = (await store.head("b", "k")).parts
    assert len(parts) == 4
    assert [part.number for part in parts[1:3]] == [2, 3]
    assert parts[-1].number == 4
    assert parts == (await store.head("b", "k")).parts
    assert parts != ()
    with pytest.raises(IndexError):
        parts[4]
    assert "PackedParts" in repr(parts)


async def test_completions_are_forgotten_after_a_day(store: LocalStore, tmp_path: Path) -> None:
    await put_in_parts(store, "k", 1)
    await put_in_parts(store, "k2", 1)
    db = sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)
    assert db.execute("SELECT count(*) FROM completed").fetchone() == (2,)
    two_days_ago = time.time_ns() - 2 * 86_400 * 10**9
    db.execute("UPDATE completed SET completed_ns = ? WHERE key = ?", (two_days_ago, b"k"))
    await put_in_parts(store, "k3", 1)
    assert db.execute("SELECT key FROM completed ORDER BY key").fetchall() == [(b"k2",), (b"k3",)]
    db.close()


class FullFolder(BlobFolder):
    """A folder on a disk that has no room."""

    def create_temp(self, blob_id: bytes) -> int:
        os.close(super().create_temp(blob_id))
        return os.open("/dev/full", os.O_WRONLY)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    for name in ("tmp", "blobs"):
        (tmp_path / name).mkdir()
    writer = BlobWriter(FullFolder(tmp_path, 1, "maker"), None)
    with pytest.raises(StoreFull):
        writer.finish([b"data"])
    writer.abandon()
    assert not list(tmp_path.glob("*/*"))


async def test_a_later_versions_folder_is_refused(tmp_path: Path) -> None:
    await LocalStore.at(tmp_path).close()
    db = sqlite3.connect(tmp_path / "index.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(RuntimeError, match="later version"):
        LocalStore.at(tmp_path)


async def test_closing_twice_is_safe_and_a_closed_store_takes_nothing(store: LocalStore) -> None:
    await store.close()
    await store.close()
    with pytest.raises(RuntimeError, match="closed"):
        await store.create_bucket("c", owner="o")
