"""The parts of a sort that hold files or memory: what is unpacked, opened and read, and how much of it at a time."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.target.sort_rig import packed as archive
from tests.unit.target.sort_rig import unpacked as files_of
from transom.plugins.contract import Reject
from transom.target.errors import SourceChanged, StoreFull
from transom.target.jobs.alarm import JobAborted
from transom.target.jobs.order import Sorting
from transom.target.jobs.sort import packing, unpacked
from transom.target.jobs.sort.archive import end_mark, stored_size
from transom.target.jobs.sort.opened import Sources, open_source
from transom.target.jobs.sort.packing import packed
from transom.target.jobs.sort.sources import Kind, Piece, SourceObject
from transom.target.jobs.sort.spill import _PIECES, Spill
from transom.target.jobs.sort.unpacked import Unpacked
from transom.target.store.base import Attributes, ObjectInfo
from transom.target.store.memory import MemoryReader, MemoryStore

MIB = 1024 * 1024


def reader(key: str, data: bytes) -> tuple[SourceObject, MemoryReader]:
    info = ObjectInfo("b", key, len(data), f"etag of {key}", 0, Attributes())
    return SourceObject(0, "b", key, len(data), info.etag, Kind.PACKED), MemoryReader(info, data)


# --- unpacked archives ----------------------------------------------------------------------------


def test_an_archive_is_unpacked_once_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    written = unpacked._written
    monkeypatch.setattr(unpacked, "_written", lambda fd, of: runs.append(1) or written(fd, of))
    source, of = reader("a", gzip.compress(b"x" * 3 * MIB))

    def ask(_: int) -> bytes:
        file, size = Unpacked(tmp_path / "kept").open(source, of)
        try:
            return file.read(size, 0)
        finally:
            file.close()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {b"x" * 3 * MIB}
    assert runs == [1]


def test_what_was_used_longest_ago_is_crowded_out_and_who_has_it_open_reads_on(tmp_path: Path) -> None:
    kept = Unpacked(tmp_path, kept_size=25_000)
    pairs = [reader(key, gzip.compress(key.encode() * 10_000)) for key in "abc"]
    first, size = kept.open(*pairs[0])
    for source, of in pairs[1:]:
        kept.open(source, of)[0].close()
    assert len(list(tmp_path.glob("*.tar"))) == 2
    assert first.read(size, 0) == b"a" * 10_000
    first.close()
    again, size = kept.open(*pairs[0])
    assert again.read(size, 0) == b"a" * 10_000
    again.close()


def test_what_cannot_be_unpacked_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, of = reader("bad", gzip.compress(os.urandom(MIB))[:-9])
    with pytest.raises(Reject, match=r"cut short, \d+ bytes into the unpacked archive"):
        Unpacked(tmp_path).open(source, of)
    full = reader("full", gzip.compress(b"x"))

    def no_room(_fd: int, _data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpacked.os, "write", no_room)
    with pytest.raises(StoreFull, match="no room"):
        Unpacked(tmp_path).open(*full)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"] * 2


def test_older_ones_make_room_for_a_newer_one_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Unpacked(tmp_path)
    first, second = (reader(key, gzip.compress(key.encode() * 10_000)) for key in "ab")
    kept.open(*first)[0].close()
    written = unpacked._written

    def of_a_small_disk(fd: int, of: MemoryReader) -> int:
        if list(tmp_path.glob("*.tar")):
            raise OSError(28, "No space left on device")
        return written(fd, of)

    monkeypatch.setattr(unpacked, "_written", of_a_small_disk)
    file, size = kept.open(*second)
    assert file.read(size, 0) == b"b" * 10_000
    file.close()
    assert len(list(tmp_path.glob("*.tar"))) == 1


# --- opened sources -------------------------------------------------------------------------------


async def store_of(objects: dict[str, bytes]) -> tuple[MemoryStore, list[SourceObject]]:
    async def body(data: bytes) -> AsyncIterator[bytes]:
        yield data

    store = MemoryStore()
    await store.create_bucket("b", owner="o")
    found = []
    for n, (key, data) in enumerate(objects.items()):
        info = await store.put("b", key, body(data), Attributes())
        found.append(SourceObject(n, "b", key, info.size, info.etag, Kind.ARCHIVE))
    return store, found


async def test_only_so_many_sources_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, found = await store_of({str(n): b"%d" % n for n in range(9)})
    closed: list[str] = []
    monkeypatch.setattr(MemoryReader, "close", lambda self: closed.append(self.info.key))
    sources = Sources(store, Unpacked(tmp_path), most=3)
    for n in (0, 1, 2, 0, 3, 0, 4):
        assert (await sources.open(found[n])).read_at(0, 9) == b"%d" % n
    assert closed == ["1", "2"]
    sources.close()
    assert sorted(closed) == ["0", "1", "2", "3", "4"]


async def test_a_source_of_another_etag_is_refused(tmp_path: Path) -> None:
    store, (source,) = await store_of({"a": b"new"})
    sources = Sources(store, Unpacked(tmp_path))
    with pytest.raises(SourceChanged, match="s3://b/a was changed since it was scanned"):
        await sources.open(replace(source, etag="old"))
    sources.close()


async def test_a_name_that_tells_nothing_is_looked_into(tmp_path: Path) -> None:
    store, found = await store_of({"tar": archive([("a", b"")]), "text": b"text", "zeros": bytes(600), "empty": b""})
    kinds = []
    for source in found:
        one = await open_source(store, replace(source, kind=Kind.UNKNOWN), Unpacked(tmp_path))
        kinds.append(one.source.kind)
        one.close()
    assert kinds == [Kind.ARCHIVE, Kind.PLAIN, Kind.PLAIN, Kind.PLAIN]


# --- packing --------------------------------------------------------------------------------------


async def whole(pieces: Sequence[Piece], found: list[SourceObject], sources: Sources) -> bytes:
    chunks = [chunk async for chunk in packed(iter(pieces), found.__getitem__, sources)]
    made = b"".join(chunks)
    assert len(made) == sum(stored_size(piece.name, piece.size) for piece in pieces)
    return made + end_mark(len(made))


@pytest.mark.parametrize("window_size", [1, 3000, 8 * MIB])
@pytest.mark.parametrize("gap", [0, 600, 64 * 1024])
async def test_members_come_out_in_order_however_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window_size: int, gap: int
) -> None:
    chance = random.Random(3)
    objects = {str(n): chance.randbytes(20_000) for n in range(4)}
    store, found = await store_of(objects)
    monkeypatch.setattr(packing, "WINDOW_SIZE", window_size)
    monkeypatch.setattr(packing, "_FAR_GAP", gap)
    monkeypatch.setattr(packing, "_LONG", 2500)
    monkeypatch.setattr(packing, "_READ_SIZE", 1000)
    pieces, expected = [], []
    for n in range(200):
        source, offset, size = (
            chance.randrange(4),
            chance.randrange(17_000),
            chance.choice([0, 1, 511, 512, 2499, 3000]),
        )
        pieces.append(Piece(source, offset, size, b"%d.x" % n))
        expected.append((f"{n}.x", objects[str(source)][offset : offset + size]))
    sources = Sources(store, Unpacked(tmp_path), most=2)
    assert files_of(await whole(pieces, found, sources)) == expected
    sources.close()


async def test_members_beside_each_other_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, found = await store_of({"a": bytes(MIB)})
    reads: list[int] = []
    read_at = MemoryReader.read_at
    monkeypatch.setattr(
        MemoryReader, "read_at", lambda self, at, length: reads.append(length) or read_at(self, at, length)
    )
    pieces = [Piece(0, 512 + n * 1024, 500, b"%d.x" % n) for n in reversed(range(1000))]
    sources = Sources(store, Unpacked(tmp_path))
    await whole(pieces, found, sources)
    sources.close()
    assert reads == [999 * 1024 + 500]


async def test_a_source_that_is_shorter_than_it_was_is_refused(tmp_path: Path) -> None:
    store, found = await store_of({"a": bytes(100)})
    sources = Sources(store, Unpacked(tmp_path))
    with pytest.raises(SourceChanged, match="shorter than it was"):
        await whole([Piece(0, 50, 51, b"a.x")], found, sources)
    sources.close()


async def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    store, found = await store_of({"a": bytes(40 * MIB)})
    sources = Sources(store, Unpacked(tmp_path))
    pieces = [Piece(0, n * 10_000 % (30 * MIB), 10_000, b"%d.x" % n) for n in range(10_000)]
    pieces.append(Piece(0, 0, 40 * MIB, b"long.x"))
    tracemalloc.start()
    try:
        size = 0
        async for chunk in packed(iter(pieces), found.__getitem__, sources):
            size += len(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    sources.close()
    assert size > 130 * MIB
    assert peak < 3 * packing.WINDOW_SIZE


# --- spill ----------------------------------------------------------------------------------------


def test_a_long_query_is_ended_by_what_look_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transom.target.jobs.sort.spill._STEPS", 100)
    spill = Spill.create(tmp_path)
    spill.add_sources([SourceObject(n, "b", f"{n}.x", 1, "e", Kind.PLAIN, b"%d.x" % n) for n in range(2000)])
    spill.add_plain(spill.sources([Kind.PLAIN], after=-1, limit=-1))

    def stop() -> None:
        raise KeyboardInterrupt

    spill.watch(stop)
    with pytest.raises(KeyboardInterrupt):
        spill.gather()
    spill.close()


def test_a_long_look_at_what_is_spilled_is_ended_likewise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transom.target.jobs.sort.spill._STEPS", 100)
    spill = Spill.create(tmp_path)
    spill.add_sources([SourceObject(n, "b", f"{n}.x", 1, "e", Kind.PLAIN, b"%d.x" % n) for n in range(2000)])
    spill.add_plain(spill.sources([Kind.PLAIN], after=-1, limit=-1))
    spill.gather()

    def stop() -> None:
        raise JobAborted

    spill.watch(stop)
    for look in (spill.twice, spill.totals):
        with pytest.raises(JobAborted), spill.stoppable():
            look()
    spill.close()


SPILLING = """
import os, sys
from pathlib import Path
from transom.target.jobs.sort import spill as module
from transom.target.jobs.sort.sources import Kind, SourceObject
module._CACHE_KIB, module._STEPS = 64, 1000
found = set()
def look():
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            pass
spill = module.Spill.create(Path(sys.argv[1]))
spill.add_sources([SourceObject(n, "b", f"{n}.x", 1, "e", Kind.PLAIN, b"%d.x" % n) for n in range(40_000)])
spill.add_plain(spill.sources([Kind.PLAIN], after=-1, limit=-1))
spill.watch(look)
spill.gather()
spill.close()
print(*sorted({str(Path(path).parent) for path in found if "etilqs" in path}))
"""


def test_what_sqlite_does_not_hold_in_memory_is_where_its_process_was_told(tmp_path: Path) -> None:
    env = {**os.environ, "SQLITE_TMPDIR": str(tmp_path / "beside")}
    for folder in ("beside", "job"):
        (tmp_path / folder).mkdir()
    command = [sys.executable, "-c", SPILLING, str(tmp_path / "job")]
    told = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stdout
    assert told.split() == [str(tmp_path / "beside")]


def test_the_shards_of_many_records_are_found_without_sorting_them_again(tmp_path: Path) -> None:
    spill = Spill.create(tmp_path)
    spill.add_sources([SourceObject(n, "b", f"{n}.x", 1, "e", Kind.PLAIN, b"%d.x" % n) for n in range(100)])
    spill.add_plain(spill.sources([Kind.PLAIN], after=-1, limit=-1))
    spill.gather()
    spill.place(
        (n // 10, name, size) for n, (name, size) in enumerate(spill.in_order(Sorting(by="shuffle", shard_count=1)))
    )
    spill.close()
    opened_again = Spill.open(tmp_path)
    assert [shard.records for shard in opened_again.shards()] == [10] * 10
    assert len({piece.name for n in range(10) for piece in opened_again.pieces(n)}) == 100
    steps = opened_again._db.execute("EXPLAIN QUERY PLAN " + _PIECES, (3,)).fetchall()
    assert not [step for step in steps if "TEMP B-TREE" in step[3] or step[3].startswith("SCAN")]
    opened_again.close()
