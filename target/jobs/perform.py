"""A batch of a job's objects, done: what a worker is given, and what comes back for every object.

It knows the site that it works in, nothing of catalogs, worklists or engines.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache, partial

from transom.target.etl.plan import Plan
from transom.target.jobs.doing import Doing
from transom.target.jobs.engines.base import Later, StagedWork
from transom.target.jobs.hands import is_done
from transom.target.jobs.last_stage import LastStages
from transom.target.jobs.making import Judge, Task
from transom.target.jobs.order import Order
from transom.target.jobs.records import Item, Outcome
from transom.target.jobs.site import Site
from transom.target.jobs.where import Predicate

_LOOK_S = 1.0  # how often a batch is looked at, at least
_GRACE_S = 0.5  # a worker past its deadline is killed by the run's own thread first


@dataclass(frozen=True, slots=True)
class Batch:
    """Objects to do together, and the target near which that is best done ("" for anywhere).

    Good ones have some 128 items, or fewer of about 16 MiB in all: one wait for the disk is shared by them. One that
    is `alone` has an object that may kill its worker: nothing else is under way in it then, to be taken for that one.
    """

    items: tuple[Item, ...]
    place: str = ""
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a batch: an outcome for each item, but for those `unfinished`, which are to be given out again.

    A batch whose outputs fill the memory meant for them ends before its last item. `worn_out` says that a transformer
    hangs in the worker: it must not be used again. `took_s` is how long its objects took, but for their writing.
    `suspects` failed with an ETL's worker that died, maybe of another object: they are to be tried alone.
    """

    outcomes: tuple[Outcome, ...]
    unfinished: tuple[Item, ...] = ()
    worn_out: bool = False
    took_s: float = 0.0
    suspects: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class TransformWork(StagedWork[Batch, Done]):
    """How the objects of one job are transformed, or inspected; `plan` is None where they are only read.

    `owner` owns what is written. `where_plan` is the plan of the order's `where_etl`, None without one. Where its
    stages could not be told apart by a worker's death, `last_stages` is where workers say which one is at work.
    """

    job_id: str
    order: Order
    plan: Plan | None
    owner: str
    where_plan: Plan | None = None
    last_stages: LastStages | None = None

    def begin(self, site: Site, batch: Batch, /) -> Done | Later[Done]:
        """Do a batch but for its write; blocking. What goes wrong with an object is its outcome, never raised."""
        task = Task(self.order, self.plan, self._judge(), self.owner)
        saying = self.last_stages if batch.alone else None
        doing = Doing(task, site, batch.items, alone=batch.alone, saying=saying)
        begun = time.monotonic()
        future = site.hands.do(lambda: site.wait(doing.run()))
        while not is_done(future, _until(doing)):
            if doing.give_up(_GRACE_S):
                site.wait(doing.write())
                return _done(doing, time.monotonic() - begun, worn_out=True)
        future.result()
        write = partial(_write, site, doing, time.monotonic() - begun)
        return write() if batch.alone else Later(write)

    def _judge(self) -> Judge | None:
        """What judges by outputs: where it needs none, the predicate was asked when the objects were chosen."""
        predicate = None if self.order.where is None else _predicate(self.order.where)
        if predicate is None or not predicate.needs_output:
            return None
        return Judge(predicate.after, self.where_plan)


def _write(site: Site, doing: Doing, took_s: float) -> Done:
    site.wait(doing.write())
    return _done(doing, took_s)


def _done(doing: Doing, took_s: float, *, worn_out: bool = False) -> Done:
    return Done(tuple(doing.outcomes), doing.unfinished, worn_out, took_s, tuple(doing.suspects))


def _until(doing: Doing) -> float:
    """How long to wait before looking whether an object has passed its deadline, in seconds."""
    left_s = doing.left_s()
    return _LOOK_S if left_s is None else min(max(left_s, 0) + _GRACE_S, _LOOK_S) + 0.01


@lru_cache(maxsize=64)
def _predicate(text: str) -> Predicate:
    return Predicate.parse(text)
