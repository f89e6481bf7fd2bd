"""What is swept when a data folder is opened, by whom, and what is left alone."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from transom.target.store.base import Attributes
from transom.target.store.conformance import body_of
from transom.target.store.local import LocalStore

PLAIN = Attributes()


async def filled(root: Path) -> LocalStore:
    store = LocalStore.at(root, threads=2)
    await store.create_bucket("b", owner="o")
    await store.put("b", "k", body_of(b"data"), PLAIN)
    return store


def leave_orphans(root: Path) -> list[Path]:
    """What a crash leaves behind: a temporary file, and a blob whose row was never written."""
    kept = next((root / "blobs").glob("*/*/*"))
    orphans = [root / "tmp" / ("00" * 16), kept.with_name(kept.name[:-4] + "0000")]
    for path in orphans:
        path.write_bytes(b"orphan")
    return orphans


async def test_leftovers_are_swept_by_who_is_alone(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    orphans = leave_orphans(tmp_path)
    store = LocalStore.at(tmp_path, threads=2)
    assert not any(path.exists() for path in orphans)
    reader = await store.open("b", "k")
    assert reader.read_at(0, 10) == b"data"
    reader.close()
    await store.close()


async def test_who_is_not_alone_sweeps_nothing(tmp_path: Path) -> None:
    """What looks left over may be another process's work under way."""
    first = await filled(tmp_path)
    orphans = leave_orphans(tmp_path)
    second = LocalStore.at(tmp_path, threads=2)
    assert all(path.exists() for path in orphans)
    await first.close()
    third = LocalStore.at(tmp_path, threads=2)
    assert all(path.exists() for path in orphans)
    await second.close()
    await third.close()
    await LocalStore.at(tmp_path, threads=2).close()
    assert not any(path.exists() for path in orphans)


async def test_a_deletion_that_was_not_finished_is(tmp_path: Path) -> None:
    """A crash between commit and unlink leaves a blob of an epoch that may be swept long since."""
    await (await filled(tmp_path)).close()
    await LocalStore.at(tmp_path, threads=2).close()
    db = sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)
    db.execute("DELETE FROM objects")
    db.execute("UPDATE blobs SET due_ns = 0")
    db.close()
    await LocalStore.at(tmp_path, threads=2).close()
    assert not list((tmp_path / "blobs").glob("*/*/*"))


async def test_epochs_that_hold_nothing_go(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    for _ in range(3):
        await LocalStore.at(tmp_path, threads=2).close()
    # the epoch that holds the object, and the last one
    assert [path.name for path in sorted((tmp_path / "blobs").iterdir())] == ["00000001", "00000004"]


async def test_swept_epochs_are_not_scanned_again(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    await LocalStore.at(tmp_path, threads=2).close()
    orphan = leave_orphans(tmp_path)[1]
    await LocalStore.at(tmp_path, threads=2).close()
    assert orphan.exists()


async def test_many_open_a_new_folder_at_once(tmp_path: Path) -> None:
    stores = await asyncio.gather(*(asyncio.to_thread(LocalStore.at, tmp_path, threads=1) for _ in range(8)))
    await stores[0].create_bucket("b", owner="o")
    await asyncio.gather(*(store.put("b", f"k{n}", body_of(b"x"), PLAIN) for n, store in enumerate(stores)))
    assert len((await stores[-1].list_objects("b")).objects) == 8
    for store in stores:
        await store.close()
