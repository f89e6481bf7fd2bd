"""Plans a sort: scans the sources, puts the records in order and cuts them into shards, each an item of the worklist.

Nothing is written to a store; a plan that was begun and not finished is made anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transom.plugins.builtin.tar_stream import ENCODING
from transom.target.errors import JobRefused, NoSuchBucket, StoreFull, TargetError
from transom.target.jobs.engines.base import Engine
from transom.target.jobs.naming import MAX_KEY_BYTES
from transom.target.jobs.order import Order, Sorting
from transom.target.jobs.records import Selected
from transom.target.jobs.site import Site
from transom.target.jobs.sort.choosing import chosen
from transom.target.jobs.sort.cut import cut
from transom.target.jobs.sort.scan import Scanned, ScanTask, ScanWork
from transom.target.jobs.sort.sources import Kind, SourceObject, record_of
from transom.target.jobs.sort.spill import Spill, sync
from transom.target.jobs.sort.tasks import WORKER_LOST, Tasks, lost_message, perform
from transom.target.jobs.templates import Template
from transom.target.jobs.worklist import Worklist

_BATCH = 1000
_PLAIN_PER_TASK = 64

# nothing is wrong with the source that met them, and every other would
_ENDING: dict[str, type[TargetError]] = {error.__name__: error for error in (StoreFull, NoSuchBucket)}


@dataclass(frozen=True, slots=True)
class Planner:
    """What a sort is planned with. `look(phase)` is called often; what it raises ends the planning."""

    site: Site
    order: Order
    engine: Engine
    worklist: Worklist
    folder: Path
    unpacked: Path | None
    width: int
    look: Callable[[str], None]

    @property
    def sorting(self) -> Sorting:
        """How records become shards."""
        assert self.order.sorting is not None
        return self.order.sorting

    @property
    def content(self) -> str:
        """The extension of the members to sort by, "" for none."""
        return self.sorting.content.removeprefix(".").lower()

    def plan(self) -> None:
        """Fill the worklist and seal it.

        Raises JobRefused for what can't be sorted as asked, and what stores raise.
        """
        names = shard_names(self.order)
        self.worklist.clear()
        spill = Spill.create(self.folder)
        try:
            self._choose(spill)
            self._scan(spill)
            self.look("sorting")
            spill.watch(lambda: self.look("sorting"))
            with spill.stoppable():
                self._order(spill)
                self._cut(spill, names)
        finally:
            spill.close()
        sync(self.folder)
        self.worklist.seal()

    def _choose(self, spill: Spill) -> None:
        self.look("listing")
        for page in chosen(self.site, self.order):
            self._fail(page.failed)
            self._take(spill, page.sources)
            self.look("listing")

    def _take(self, spill: Spill, found: Sequence[SourceObject]) -> None:
        """Keep sources; what is known of them without reading is their scan."""
        spill.add_sources(found)
        spill.add_plain(each for each in found if each.kind is Kind.PLAIN and not self._has_value(each))

    def _has_value(self, source: SourceObject) -> bool:
        """Whether a plain object is a member with a value to sort by."""
        return bool(self.content) and record_of(source.name)[1] == self.content

    def _scan(self, spill: Spill) -> None:
        work = ScanWork(self.content, self.sorting.values, self.unpacked)
        tasks = Tasks(self._scan_tasks(spill))
        for task, result in perform(self.engine, work, tasks, width=self.width, look=lambda: self.look("scanning")):
            if isinstance(result, str):
                lost = [Scanned(source, code=WORKER_LOST, message=lost_message(result)) for source in task.sources]
                self._note(spill, lost)
                continue
            self._note(spill, result.found)
            for each in result.found:
                if each.resume is not None:
                    tasks.add(replace(task, sources=(each.source,), resume=each.resume))

    def _scan_tasks(self, spill: Spill) -> Iterator[ScanTask]:
        for each in _all(spill, Kind.NAMED):
            yield ScanTask((each,), self.engine.place_of(each.bucket, each.key))
        together: list[SourceObject] = []
        for each in _all(spill, Kind.UNKNOWN, Kind.PLAIN):
            if each.kind is Kind.PLAIN and not self._has_value(each):
                continue
            together.append(each)
            if len(together) == _PLAIN_PER_TASK:
                yield ScanTask(tuple(together))
                together.clear()
        if together:
            yield ScanTask(tuple(together))

    def _note(self, spill: Spill, found: Iterable[Scanned]) -> None:
        for each in found:
            if each.code in _ENDING:
                raise _ENDING[each.code](each.message)
            if each.code:
                spill.leave_out(each.source)
                self._fail([_failed(each.source, each.code, each.message)])
                continue
            spill.add_members(each.source, each.members)
            spill.add_problems(each.source, each.problems)

    def _fail(self, objects: Iterable[Selected]) -> None:
        """List objects that failed; the first ends a job that isn't to go on after errors."""
        for each in objects:
            self.worklist.add([each])
            if not self.order.continue_on_error:
                raise JobRefused(f"nothing was written, since {each.key} failed: {each.message}")

    def _order(self, spill: Spill) -> None:
        spill.gather()
        twice = spill.twice()
        if twice:
            raise JobRefused(f"{twice}: a sort can't keep both; leave one out by match or where, or rename it")
        for problem in spill.reject(self.content):
            self.look("sorting")
            source, record = problem.source, problem.record.decode(ENCODING, "replace")
            message = f"record {record!r}: {problem.message}"
            self._fail([_failed(source, "RecordFailed", message)])

    def _cut(self, spill: Spill, names: Template | list[str]) -> None:
        records, total = spill.totals()
        spill.place(_placed(spill, self.sorting, records, total, self.look))
        shards = spill.count_shards()
        if shards > len(names):
            raise JobRefused(
                f"{shards} shards need as many names, and {self.sorting.shards!r} makes {len(names)}:"
                " give a longer range or make larger shards"
            )
        keys = [destination_key(self.order, names[n]) for n in range(shards)]
        self._check_keys(spill, keys)
        spill.name(enumerate(keys))
        self.worklist.add(Selected(keys[each.n], each.stored, "", keys[each.n]) for each in spill.shards())

    def _check_keys(self, spill: Spill, keys: Sequence[str]) -> None:
        assert self.order.destination is not None
        if len(set(keys)) < len(keys):
            raise JobRefused(f"{self.sorting.shards!r} makes some names twice: with one pair of braces it can't")
        if any(len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES for key in keys):
            raise JobRefused(f"the shards' names would have more than {MAX_KEY_BYTES} bytes, which is S3's limit")
        bucket = self.order.destination.bucket
        read = next((key for key in keys if spill.has_source(bucket, key)), None)
        if read is not None:
            raise JobRefused(f"s3://{bucket}/{read} is both read and to be written: choose other names or a prefix")


def shard_names(order: Order) -> Template | list[str]:
    """The names that shards get, in order; without braces it is one. Raises JobRefused."""
    assert order.sorting is not None
    text = order.sorting.shards
    return Template.parse(text) if "{" in text or "}" in text else [text]


def destination_key(order: Order, name: str) -> str:
    """The key of the shard of that name: a sort's destination is always a prefix."""
    assert order.destination is not None
    path = order.destination.path
    return path + ("/" if path and not path.endswith("/") else "") + order.prepend + name


def _placed(
    spill: Spill, sorting: Sorting, records: int, total: int, look: Callable[[str], None]
) -> Iterator[tuple[int, bytes, int]]:
    """Yield the records in order, each with its shard's number and its bytes."""
    ordered, sized = itertools.tee(spill.in_order(sorting))
    shards = cut((size for _, size in sized), sorting, records, total)
    for n, ((record, size), shard) in enumerate(zip(ordered, shards, strict=True)):
        if n % _BATCH == 0:
            look("sorting")
        yield shard, record, size


def _failed(source: SourceObject, code: str, message: str) -> Selected:
    return Selected(source.key, source.size, source.etag, "", code, message)


def _all(spill: Spill, *kinds: Kind) -> Iterator[SourceObject]:
    after = -1
    while page := spill.sources(kinds, after=after, limit=_BATCH):
        yield from page
        after = page[-1].n
