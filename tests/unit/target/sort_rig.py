"""A place to sort in: objects in, shards out, by an engine in this process or by the real one."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.target.job_site import Rig
from transom.target.jobs.catalog import RECORDS
from transom.target.jobs.engines.base import Engine, Finished, R, T, Work
from transom.target.jobs.order import Order
from transom.target.jobs.records import Counts, Item, JobError, Outcome
from transom.target.jobs.site import Site
from transom.target.jobs.sort.sorting import Sort, sort_job
from transom.target.jobs.worklist import Worklist

Files = Sequence[tuple[str, bytes]]


@dataclass
class HereEngine(Engine):
    """Performs tasks one after another in this process, as copies; for each type in `losing` one worker is lost.

    `before` is told of each.
    """

    site: Site
    losing: list[type] = field(default_factory=list)
    done: list[Any] = field(default_factory=list)
    before: Callable[[object], None] = lambda _task: None

    @property
    def cores(self) -> int:
        return 1

    def run(
        self, work: Work[T, R], tasks: Iterable[T], *, width: int, look: Callable[[], None] | None = None
    ) -> Generator[Finished[T, R], None, None]:
        copy = pickle.loads(pickle.dumps(work))
        for task in tasks:
            self.done.append(task)
            self.before(task)
            if self.losing and type(task) is self.losing[0]:
                self.losing.pop(0)
                yield Finished(task, None, "signal 9")
            else:
                yield Finished(task, pickle.loads(pickle.dumps(copy(self.site, pickle.loads(pickle.dumps(task))))))

    def close(self) -> None:
        pass


@dataclass
class Sorter:
    """Sorts from `s3://src` into `s3://dst`, a job a name."""

    rig: Rig
    engine: Engine
    root: Path
    phases: list[str] = field(default_factory=list)
    message: str = ""
    look: Callable[[str], None] | None = None

    def order(self, **asked: Any) -> Order:
        """An order; `sorting` has what isn't an order's own."""
        own = {name: asked.pop(name) for name in list(asked) if name in Order.model_fields}
        if not {"shard_size", "shard_count"} & set(asked):
            asked.setdefault("shard_records", 10)
        return Order(**{"kind": "sort", "source": "s3://src", "destination": "s3://dst", **own, "sorting": asked})

    def sort(self, name: str = "job", **asked: Any) -> Counts:
        """Run a job to its end; what it was asked, by name. Raises what it raises; only an Exception is a job's end."""
        folder = self.root / "jobs" / name
        with Worklist.open(folder) as worklist:

            def note(outcome: Outcome, item: Item) -> None:
                assert outcome.n == item.n
                worklist.note([outcome])

            look = self.look or self.phases.append
            site, order = self.rig.site, self.order(**asked)
            try:
                self.message = sort_job(Sort(site, order, self.engine, worklist, folder, "owner", 2, look, note))
            except Exception:
                (folder / RECORDS).unlink(missing_ok=True)  # as the catalog does when a job ends
                raise
            (folder / RECORDS).unlink()
            return worklist.counts()

    def errors(self, name: str = "job") -> list[JobError]:
        """What a job failed on."""
        with Worklist.open(self.root / "jobs" / name) as worklist:
            return worklist.errors()

    def members(self) -> dict[str, list[str]]:
        """The names in every shard, in order."""
        return {key: [name for name, _ in unpacked(self.rig.read(key))] for key in list(self.rig.keys())}

    def records(self) -> list[str]:
        """The names of all members, shard by shard."""
        return [name for names in self.members().values() for name in names]


def packed(files: Files, *, format: int = tarfile.PAX_FORMAT, mtime: float = 12.5) -> bytes:
    """A tar archive; a time that isn't whole has each member get a pax header."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=format) as made:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid, info.uname = len(data), mtime, 7, "me"
            made.addfile(info, io.BytesIO(data))
    return output.getvalue()


def unpacked(data: bytes) -> Files:
    """The files of a tar archive."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            content = archive.extractfile(info)
            assert content is not None
            found.append((info.name, content.read()))
    return found
