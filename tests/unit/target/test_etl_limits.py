"""Slots, queues, circuits and the locks below them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from transom.cluster.catalog import Catalog
from transom.target.errors import EtlUnavailable, SlowDown
from transom.target.etl.limits import Gate, Limits
from transom.target.etl.locks import ByteHolds, ByteLocks

HOLD = """
import sys
from pathlib import Path
from transom.target.etl.locks import ByteLocks
locks = ByteLocks(Path(sys.argv[1]))
print(locks.try_lock(7), flush=True)
sys.stdin.read()
"""


# --- locks ------------------------------------------------------------------------------------------


def test_a_lock_is_held_once_even_within_a_process(tmp_path: Path) -> None:
    one, other = ByteLocks(tmp_path / "locks"), ByteLocks(tmp_path / "locks")
    assert one.try_lock(7)
    assert not one.try_lock(7) and not other.try_lock(7)
    assert other.held_elsewhere(7) and not other.held_elsewhere(8)
    assert other.try_lock(8)
    one.unlock(7)
    assert other.try_lock(7)
    one.close()
    other.close()


def test_holds_are_counted_and_end_with_their_holder(tmp_path: Path) -> None:
    one, other = ByteHolds(tmp_path / "holds"), ByteHolds(tmp_path / "holds")
    one.take(7)
    one.take(7)
    one.drop(7)
    assert other.held_elsewhere(7)
    one.drop(7)
    assert not other.held_elsewhere(7)
    one.take(8)
    assert other.held_elsewhere(8)
    one.close()
    assert not other.held_elsewhere(8)
    one.drop(8)  # by a run that ends late
    other.close()


def test_large_offsets_are_apart(tmp_path: Path) -> None:
    locks, other = ByteLocks(tmp_path / "locks"), ByteLocks(tmp_path / "locks")
    assert locks.try_lock((1 << 60) - 1)
    assert other.try_lock((1 << 60) - 2) and not other.try_lock((1 << 60) - 1)
    locks.close()
    other.close()


def test_a_killed_process_frees_its_locks(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        locks = ByteLocks(path)
        assert not locks.try_lock(7)
        holder.kill()
        holder.wait()
        assert locks.try_lock(7)
        locks.close()


def test_a_child_inherits_no_lock(tmp_path: Path) -> None:
    locks = ByteLocks(tmp_path / "locks")
    assert locks.try_lock(7)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        locks.close()  # the last descriptor, if the child has none
        again = ByteLocks(tmp_path / "locks")
        assert again.try_lock(7)
        again.close()
        child.kill()


# --- the gate ---------------------------------------------------------------------------------------


def gate(folder: Path, catalog: Catalog, *, queue: int = 256) -> Gate:
    return Gate(ByteLocks(folder / "slots"), Limits(queue=queue), catalog)


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


async def test_so_many_at_once_and_no_more_across_processes(tmp_path: Path, catalog: Catalog) -> None:
    one, other = gate(tmp_path, catalog), gate(tmp_path, catalog)
    slots = [await one.enter([("a", 2)], soon()), await other.enter([("a", 2)], soon())]
    for each in (one, other):
        with pytest.raises(SlowDown, match="'a' is busy") as refused:
            await each.enter([("a", 2)], soon(0.01))
        assert refused.value.retry_after_s
    free = await one.enter([("b", 2)], soon())  # another's places are its own
    waiting = asyncio.ensure_future(other.enter([("a", 2)], soon()))
    await asyncio.sleep(0)
    slots.pop().release()
    slots.append(await waiting)
    for slot in [*slots, free]:
        slot.release()
        slot.release()  # twice is once
    again = [await one.enter([("a", 2)], soon()) for _ in range(2)]
    assert len(again) == 2


async def test_a_full_queue_turns_away_at_once(tmp_path: Path, catalog: Catalog) -> None:
    one = gate(tmp_path, catalog, queue=1)
    slot = await one.enter([("a", 1)], soon())
    queued = asyncio.ensure_future(one.enter([("a", 1)], soon()))
    await asyncio.sleep(0)
    started = time.monotonic()
    with pytest.raises(SlowDown, match="1 requests wait"):
        await one.enter([("a", 1)], soon())
    assert time.monotonic() - started < 5.0
    slot.release()
    (await queued).release()


async def test_who_gives_up_leaves_neither_place_nor_ticket(tmp_path: Path, catalog: Catalog) -> None:
    one = gate(tmp_path, catalog, queue=1)
    slot = await one.enter([("a", 1)], soon())
    for _ in range(3):
        leaving = asyncio.ensure_future(one.enter([("a", 1)], soon()))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    both = asyncio.ensure_future(one.enter([("a", 1), ("b", 1)], soon(0.01)))
    with pytest.raises(SlowDown):
        await both
    (await one.enter([("b", 1)], soon())).release()  # it holds no place of the other stage
    slot.release()
    (await one.enter([("a", 1)], soon())).release()


async def test_two_pipelines_do_not_wait_for_each_other(tmp_path: Path, catalog: Catalog) -> None:
    one = gate(tmp_path, catalog)

    async def run(*etls: str) -> None:
        for _ in range(5):
            slot = await one.enter([(etl, 1) for etl in etls], soon())
            await asyncio.sleep(0)
            slot.release()

    async with asyncio.timeout(20):
        await asyncio.gather(run("a", "b"), run("b", "a"), run("a", "b", "a"), run("b"))


async def test_failures_in_a_row_open_the_circuit_and_a_success_closes_it(tmp_path: Path, catalog: Catalog) -> None:
    one = gate(tmp_path, catalog)
    for _ in range(4):
        one.broke("a")
    assert one.has_failed("a") and not one.has_failed("b")
    one.check("a", 8)
    one.succeeded(["a"])
    for _ in range(4):
        one.broke("a")
    one.check("a", 8)
    one.broke("a")
    with pytest.raises(EtlUnavailable, match="'a'") as refused:
        one.check("a", 8)
    assert refused.value.retry_after_s
    with pytest.raises(EtlUnavailable):
        await gate(tmp_path, catalog).enter([("a", 8)], soon())  # every process knows
    one.check("b", 8)
    catalog.put_state("a", "running")
    one.check("a", 8)


def test_half_the_places_lost_make_it_unavailable_until_they_return(tmp_path: Path, catalog: Catalog) -> None:
    one = gate(tmp_path, catalog)
    one.lost("a", 1)
    one.check("a", 4)
    one.lost("a", 1)
    with pytest.raises(EtlUnavailable, match="have not returned"):
        one.check("a", 4)
    with pytest.raises(EtlUnavailable):
        one.check("a", 1)
    one.check("b", 1)
    one.lost("a", -1)
    one.check("a", 4)
