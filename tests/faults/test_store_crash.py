"""Processes that store objects are killed with SIGKILL; what they were told is stored must be there, and whole."""

from __future__ import annotations

import asyncio
import hashlib
import runpy
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.wire import eventually
from transom.target.store.base import Attributes
from transom.target.store.conformance import body_of
from transom.target.store.local import LocalStore

CHILD = str(Path(__file__).with_name("putting_child.py"))
MIB = 1024 * 1024
HOLDING_CHILD = """
import asyncio, pathlib, sys
from transom.target.store.base import Attributes
from transom.target.store.local import LocalStore

async def body():
    for _ in range(24):
        yield bytes(1 << 20)
    print("under way", flush=True)
    await asyncio.Event().wait()

async def main():
    store = LocalStore.at(pathlib.Path(sys.argv[1]), threads=2)
    reader = await store.open("b", "small")
    assert reader.path.read_bytes() == b"small"
    await store.put("b", "large", body(), Attributes())

asyncio.run(main())
"""
body_for = runpy.run_path(CHILD)["body_for"]


class Said:
    """What a child said: for each key, the last word about it."""

    def __init__(self) -> None:
        self.last: dict[str, str] = {}
        self.counts: defaultdict[str, int] = defaultdict(int)

    async def listen(self, child: Process, until_stored: int | None = None) -> None:
        assert child.stdout is not None
        while line := await child.stdout.readline():
            if not line.endswith(b"\n"):
                return
            word, key = line.decode().split()
            self.last[key] = word
            self.counts[word] += 1
            if until_stored is not None and self.counts["stored"] >= until_stored:
                return

    def keys(self, *words: str) -> set[str]:
        return {key for key, word in self.last.items() if word in words}


async def start(root: Path, name: str) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, CHILD, str(root), name, stdout=PIPE)


async def kill(child: Process, said: Said) -> None:
    child.send_signal(signal.SIGKILL)
    await said.listen(child)
    assert await child.wait() == -signal.SIGKILL


async def make(root: Path) -> None:
    store = LocalStore.at(root)
    await store.create_bucket("b", owner="o")
    await store.close()


async def listed(store: LocalStore) -> set[str]:
    found: set[str] = set()
    after: str | None = ""
    while after is not None:
        page = await store.list_objects("b", after=after)
        found |= {info.key for info in page.objects}
        after = page.next_after
    return found


async def check(root: Path, said: Said) -> None:
    """Reopen the folder and compare it with what the children said."""
    store = LocalStore.at(root)
    try:
        found = await listed(store)
        assert said.keys("stored") <= found
        assert found <= said.keys("stored", "began", "deleting")  # under way when killed: in or out, but whole
        for key in found:
            await check_whole(store, key)
    finally:
        await store.close()
    assert not list((root / "tmp").iterdir())
    assert {path.name for path in (root / "blobs").glob("*/*/*")} == named_blobs(root)


async def check_whole(store: LocalStore, key: str) -> None:
    reader = await store.open("b", key)
    try:
        data = b"".join([chunk async for chunk in reader.chunks()])
    finally:
        reader.close()
    assert data == body_for(key)
    if not reader.info.parts:
        assert reader.info.etag == hashlib.md5(data).hexdigest()


def named_blobs(root: Path) -> set[str]:
    db = sqlite3.connect(root / "index.sqlite")
    try:
        return {row[0].hex() for row in db.execute("SELECT id FROM blobs")}
    finally:
        db.close()


async def test_what_was_acknowledged_survives_kills_again_and_again(tmp_path: Path) -> None:
    await make(tmp_path)
    said = Said()
    for round_, stored in enumerate((20, 300, 900)):
        child = await start(tmp_path, f"round{round_}")
        await said.listen(child, until_stored=stored)
        await kill(child, said)
        await check(tmp_path, said)
    assert said.counts["deleted"]


async def test_a_process_goes_on_when_another_is_killed(tmp_path: Path) -> None:
    await make(tmp_path)
    said = Said()
    first, second = await start(tmp_path, "first"), await start(tmp_path, "second")
    await asyncio.gather(said.listen(first, until_stored=100), said.listen(second, until_stored=100))
    await kill(first, said)
    before = said.counts["stored"]
    await said.listen(second, until_stored=before + 200)
    await kill(second, said)
    await check(tmp_path, said)


def under_way(root: Path) -> list[Path]:
    return list((root / "tmp").iterdir())


class OurPut:
    """A large put of this process, under way until told to end, and a link to another object."""

    def __init__(self, store: LocalStore) -> None:
        self.began, self.end = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(store.put("b", "ours", self._body(), Attributes()))

    async def _body(self) -> AsyncIterator[bytes]:
        for _ in range(4):
            yield bytes(MIB)
        self.began.set()
        await self.end.wait()
        yield b"end"


async def kill_in_the_middle(root: Path) -> None:
    """Have a child that has begun a large put, and has a link, killed; while it lives nothing of it goes."""
    before = len(under_way(root))
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDING_CHILD, str(root), stdout=PIPE)
    assert child.stdout is not None
    assert await child.stdout.readline() == b"under way\n"
    await LocalStore.at(root, threads=1).close()
    assert len(under_way(root)) == before + 2
    assert sum(path.stat().st_size for path in under_way(root)) > 20 * MIB
    child.send_signal(signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL


@pytest.mark.parametrize("then", ["opens", "closes", "keeps house"])
async def test_what_a_killed_process_left_goes_while_others_work(tmp_path: Path, then: str) -> None:
    await make(tmp_path)
    ours = LocalStore.at(tmp_path, threads=2, housekeeping_s=0.1 if then == "keeps house" else 3600)
    other = LocalStore.at(tmp_path, threads=2)
    stores = [ours, other]
    await ours.put("b", "small", body_of(b"small"), Attributes())
    put, reader = OurPut(ours), await ours.open("b", "small")
    link = reader.path
    assert link is not None
    await put.began.wait()
    await kill_in_the_middle(tmp_path)
    if then == "opens":
        stores.append(LocalStore.at(tmp_path, threads=1))
    elif then == "closes":
        await other.close()
    else:
        await asyncio.to_thread(eventually, lambda: len(under_way(tmp_path)) <= 2)
    assert len(under_way(tmp_path)) == 2  # ours
    assert link.read_bytes() == b"small"
    reader.close()
    put.end.set()
    assert (await put.task).size == 4 * MIB + 3
    assert await listed(ours) == {"small", "ours"}
    for store in stores:
        await store.close()
    assert not under_way(tmp_path)
    assert not list((tmp_path / "makers").iterdir())
