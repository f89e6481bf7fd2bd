"""A site over a store in a folder, with everything installed, for tests of what jobs do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transom.plugins.manager import Transformers
from transom.target.etl.limits import Limits
from transom.target.etl.metrics import EtlMetrics
from transom.target.etl.pipeline import Pipelines
from transom.target.etl.registry import Registry
from transom.target.etl.workers import WorkerPool
from transom.target.jobs.fairness import JobPlaces
from transom.target.jobs.order import Order, Place
from transom.target.jobs.perform import Batch, Done, TransformWork
from transom.target.jobs.records import Item, Outcome
from transom.target.jobs.site import Site
from transom.target.store.base import Attributes, ObjectInfo, Store
from transom.target.store.local import LocalStore

PLAIN = Attributes(content={"content-type": "text/plain"}, owner="owner")
LIMITS = Limits(gil_inline_size=1 << 60)


@dataclass
class Rig:
    """A site with the buckets `src` and `dst`, and how orders are done with it."""

    site: Site
    registry: Registry
    root: Path

    def put(self, key: str, data: bytes, attributes: Attributes = PLAIN, *, bucket: str = "src") -> ObjectInfo:
        """Store an object."""
        return self.site.wait(self.site.store.put(bucket, key, _body(data), attributes))

    def read(self, key: str, *, bucket: str = "dst") -> bytes:
        """An object's bytes."""
        reader = self.site.wait(self.site.store.open(bucket, key))
        try:
            return reader.read_at(0, reader.info.size)
        finally:
            reader.close()

    def head(self, key: str, *, bucket: str = "dst") -> ObjectInfo:
        """An object's description."""
        return self.site.wait(self.site.store.head(bucket, key))

    def keys(self, *, bucket: str = "dst") -> list[str]:
        """The keys of a bucket."""
        return [info.key for info in self.site.wait(self.site.store.list_objects(bucket)).objects]

    def work(
        self, etl: str, args: Any = None, *, where_etl: str = "", args_json: str | None = None, **asked: Any
    ) -> TransformWork:
        """What does an order."""
        plan = self.registry.plan(etl.split(">>"), args_json) if etl else None
        where_plan = self.registry.plan(where_etl.split(">>")) if where_etl else None
        if asked.get("kind") != "inspect":
            asked = {"destination": "s3://dst", **asked}
        order = Order(source=Place(bucket="src"), etl=etl, args=args, where_etl=where_etl, **asked)
        return TransformWork("job", order, plan, "owner", where_plan)

    def do(self, work: TransformWork, keys: Iterable[str]) -> Done:
        """Do objects, each to a key of its own name."""
        items = tuple(Item(n, key, 0, "", key) for n, key in enumerate(keys))
        return work(self.site, Batch(items))

    def one(self, work: TransformWork, key: str) -> Outcome:
        """What becomes of one object."""
        (outcome,) = self.do(work, [key]).outcomes
        return outcome

    def blobs(self) -> int:
        """How many blobs there are."""
        return len(list((self.root / "store" / "blobs").glob("*/*/*")))

    def left_over(self) -> list[Path]:
        """Temporary files of the store and of runs."""
        return [*(self.root / "store" / "tmp").iterdir(), *(self.root / "scratch").iterdir()]


def open_rig(
    root: Path,
    transformers: Transformers,
    registry: Registry,
    *,
    limits: Limits = LIMITS,
    wrap: Callable[[Store], Store] = lambda store: store,
) -> Rig:
    """Make the site of a rig, with its buckets."""
    scratch = root / "scratch"
    scratch.mkdir()
    pipelines = Pipelines(transformers, WorkerPool(scratch), limits, EtlMetrics())
    site = Site(wrap(LocalStore.at(root / "store")), pipelines, scratch, JobPlaces(root, limits))
    for bucket in ("src", "dst"):
        site.wait(site.store.create_bucket(bucket, owner="owner"))
    return Rig(site, registry, root)


def with_concurrency(work: TransformWork, concurrency: int) -> TransformWork:
    """The same work, its stages with places of their own."""
    assert work.plan is not None
    stages = tuple(replace(stage, concurrency=concurrency) for stage in work.plan.stages)
    return replace(work, plan=replace(work.plan, stages=stages))


async def _body(data: bytes) -> AsyncIterator[bytes]:
    yield data
