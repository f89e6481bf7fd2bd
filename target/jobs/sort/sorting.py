"""A job that sorts: plans its shards, has an engine write them, and notes what became of each in the worklist.

It knows nothing of the job's state or of who watches it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transom.target.jobs.catalog import RECORDS
from transom.target.jobs.engines.base import Engine
from transom.target.jobs.order import Order
from transom.target.jobs.records import Item, Outcome
from transom.target.jobs.site import Site
from transom.target.jobs.sort.planning import Planner
from transom.target.jobs.sort.spill import Spill
from transom.target.jobs.sort.tasks import WORKER_LOST, Tasks, lost_message, perform
from transom.target.jobs.sort.write import Carried, Contents, ShardTask, Spilled, WriteWork
from transom.target.jobs.truth import ARGS, PIPELINE, SOURCE, args_text, source_text
from transom.target.jobs.worklist import Worklist

UNPACKED = "unpacked"  # in the scratch folder, which the workers of this machine share
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Sort:
    """What a sort works with.

    `site` is the runner's own, `engine` what performs tasks, `width` at a time; `worklist` and what is spilled are in
    the job's `folder`. `owner` owns the shards. `look(phase)` is called after each task and a few times a second;
    `note` is to keep in the worklist what became of a shard. `planned` is called before any is written: the
    destination's bucket is there then, unless it is a dry run. What any of them raises ends the sort.
    """

    site: Site
    order: Order
    engine: Engine
    worklist: Worklist
    folder: Path
    owner: str
    width: int
    look: Callable[[str], None]
    note: Callable[[Outcome, Item], None]
    planned: Callable[[], None] = lambda: None


def sort_job(sort: Sort) -> str:
    """Sort; return what was made, or in a dry run would be, in a line. Every shard is an item of the worklist.

    A worklist that is sealed is gone on with: only what is pending is written. What failed needs a new plan to be
    tried again, since records may move to other shards: `Worklist.clear` it before; shards that stay as they are are
    left alone. What was spilled stays till the job's end. Raises JobRefused for what can't be sorted as asked, with
    nothing written, and what stores raise.
    """
    local = sort.order.engine == "local"
    unpacked = sort.site.scratch / UNPACKED if local else None
    sort.folder.mkdir(parents=True, exist_ok=True)
    try:
        return _sort(sort, unpacked)
    finally:
        if unpacked is not None:
            shutil.rmtree(unpacked, ignore_errors=True)


def _sort(sort: Sort, unpacked: Path | None) -> str:
    if not sort.worklist.sealed or not (sort.folder / RECORDS).exists():
        Planner(
            *(sort.site, sort.order, sort.engine, sort.worklist),
            *(sort.folder, unpacked, sort.width, sort.look),
        ).plan()
    sort.planned()
    spill = Spill.open(sort.folder)
    try:
        _write(sort, spill, unpacked)
        return _summary(sort.order, spill)
    finally:
        spill.close()


def _write(sort: Sort, spill: Spill, unpacked: Path | None) -> None:
    """Have every pending shard written."""
    assert sort.order.destination is not None
    order = sort.order
    work = WriteWork(
        sort.order.destination.bucket, sort.owner, _metadata(order), order.force, unpacked, dry=order.dry_run
    )
    tasks = Tasks(_tasks(sort, spill))
    for task, result in perform(sort.engine, work, tasks, width=sort.width, look=lambda: sort.look("writing")):
        if isinstance(result, str):
            outcome = Outcome(task.item.n, "failed", code=WORKER_LOST, message=lost_message(result))
        else:
            outcome = result.outcome
        sort.note(outcome, task.item)


def _pending(worklist: Worklist) -> Iterator[Item]:
    after = 0
    while page := worklist.pending(after, _PAGE):
        yield from page
        after = page[-1].n


def _tasks(sort: Sort, spill: Spill) -> Iterator[ShardTask]:
    """A task for each pending shard, in order."""
    assert sort.order.destination is not None
    bucket = sort.order.destination.bucket
    for item in _pending(sort.worklist):
        shard = spill.shard_of(item.destination)
        contents: Contents = Spilled(sort.folder, shard)
        if sort.order.engine != "local":  # its workers may be on other machines
            pieces = tuple(spill.pieces(shard))
            contents = Carried(pieces, {n: spill.source(n) for n in {piece.source for piece in pieces}})
        yield ShardTask(item, contents, sort.engine.place_of(bucket, item.destination))


def _metadata(order: Order) -> dict[str, str]:
    """What every shard says of its making, beside what it is made of."""
    assert order.sorting is not None
    asked = order.sorting.model_dump(mode="json", exclude_defaults=True)
    return {SOURCE: source_text(order.source.bucket, order.source.path), PIPELINE: "sort", ARGS: args_text(asked)}


def _summary(order: Order, spill: Spill) -> str:
    records, sources = _counted(spill.totals()[0], "record"), _counted(spill.count_sources(), "object")
    shards = _counted(spill.count_shards(), "shard")
    return f"{records} of {sources} {'would be' if order.dry_run else 'are'} in {shards}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
