from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from transom.target.jobs import truth
from transom.target.jobs.order import Order
from transom.target.jobs.records import Selected
from transom.target.jobs.select import PAGE
from transom.target.jobs.sync import delete_gone
from transom.target.jobs.worklist import Worklist
from transom.target.store.base import Attributes, ObjectInfo, Store, Whole, WriteCondition
from transom.target.store.local import LocalStore
from transom.target.store.memory import MemoryStore


@dataclass
class Rig:
    """Two buckets, and the worklist of a job from one to the other that has just run."""

    store: Store
    worklist: Worklist

    async def put(self, bucket: str, *keys: str, data: bytes = b"1", made_of: str | None = None) -> None:
        """Store objects; `made_of` is the bucket of whose keys, each of its own name, a job made them."""
        whole = [Whole(key, data, Attributes(metadata=said(made_of, key, bucket))) for key in keys]
        assert all(isinstance(each, ObjectInfo) for each in await self.store.put_many(bucket, whole))

    async def keys(self) -> list[str]:
        return [info.key for info in (await self.store.list_objects("dst", limit=10_000)).objects]

    async def sync(self, source: str = "s3://src", destination: str = "s3://dst", **asked: Any) -> int:
        order = {"source": source, "destination": destination, "etl": "echo", "sync": True, **asked}
        told = [0]
        await delete_gone(self.store, Order.model_validate(order), self.worklist, told.append)
        assert told == sorted(told)
        return told[-1]


def said(bucket: str | None, key: str, to: str = "dst") -> dict[str, str]:
    if bucket is None:
        return {}
    return {truth.SOURCE: truth.source_text(bucket, key), truth.PLACE: truth.place_of(to, key)}


@pytest.fixture(params=["memory", "local"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    store: Store = MemoryStore() if request.param == "memory" else LocalStore.at(tmp_path / "store")
    with asyncio.Runner() as runner, Worklist.open(tmp_path / "job") as worklist:
        for bucket in ("src", "dst"):
            runner.run(store.create_bucket(bucket, owner="o"))
        yield Rig(store, worklist)
        runner.run(store.close())


async def test_what_was_made_of_a_gone_object_goes_and_nothing_else(rig: Rig) -> None:
    await rig.put("src", "a", "b")
    rig.worklist.add([Selected("a", 1, "e", "a"), Selected("b", 1, "e", "b")])
    await rig.put("dst", "a", "b", "gone", "日本\n/..//gone", made_of="src")
    await rig.put("dst", "by hand")
    await rig.put("dst", "of another", made_of="other")
    assert await rig.sync() == 2
    assert await rig.keys() == ["a", "b", "by hand", "of another"]
    assert await rig.sync() == 0


async def test_more_than_a_page_and_those_that_stay_between(rig: Rig) -> None:
    keys = [f"{n:05}" for n in range(PAGE + 200)]
    await rig.put("dst", *keys, made_of="src")
    rig.worklist.add(Selected(key, 1, "e", key) for key in keys[::2])
    assert await rig.sync() == len(keys) // 2
    assert await rig.keys() == keys[::2]


async def test_a_dry_run_only_counts(rig: Rig) -> None:
    await rig.put("dst", "gone", made_of="src")
    assert await rig.sync(dry_run=True) == 1
    assert await rig.keys() == ["gone"]


async def test_a_dry_run_into_a_bucket_that_is_not_there_counts_nothing(rig: Rig) -> None:
    assert await rig.sync(destination="s3://not-made", dry_run=True) == 0


async def test_what_only_was_not_chosen_keeps_its_result(rig: Rig) -> None:
    """A predicate left it out, or it came after the listing."""
    await rig.put("src", "left-out")
    await rig.put("dst", "left-out", made_of="src")
    assert await rig.sync(where="size > 100") == 0
    assert await rig.keys() == ["left-out"]


async def test_only_what_the_order_chooses_is_in_its_power(rig: Rig) -> None:
    await rig.put("dst", "in/a.jpg", "in/b.txt", "in/sub/c.jpg", "out/d.jpg", made_of="src")
    assert await rig.sync("s3://src/in/", prefix="sub/") == 1
    assert await rig.keys() == ["in/a.jpg", "in/b.txt", "out/d.jpg"]
    assert await rig.sync("s3://src/in/", match="*.jpg") == 1
    assert await rig.keys() == ["in/b.txt", "out/d.jpg"]


async def test_only_below_the_destinations_prefix(rig: Rig) -> None:
    await rig.put("dst", "x", "y/x", "yy/x", made_of="src")
    assert await rig.sync(destination="s3://dst/y") == 1
    assert await rig.keys() == ["x", "yy/x"]


async def test_metadata_that_somebody_else_wrote_harms_nothing(rig: Rig) -> None:
    whole = [
        Whole(f"k{n}", b"", Attributes(metadata={truth.SOURCE: text})) for n, text in enumerate(["", "%FF", "src"])
    ]
    await rig.store.put_many("dst", whole)
    assert await rig.sync() == 0
    assert len(await rig.keys()) == 3


async def test_an_object_that_is_written_anew_meanwhile_stays(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.put("dst", "gone", "gone too", "deleted", made_of="src")
    delete = rig.store.delete

    async def late(bucket: str, key: str, *, condition: WriteCondition | None = None) -> bool:
        if key == "gone":
            await rig.put("dst", "gone", data=b"another")
        if key == "deleted":
            await delete("dst", "deleted")
        return await delete(bucket, key, condition=condition)

    monkeypatch.setattr(rig.store, "delete", late)
    assert await rig.sync() == 1
    assert await rig.keys() == ["gone"]
