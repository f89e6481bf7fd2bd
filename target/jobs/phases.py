"""What a running job does, phase by phase: lists its objects, has them done by an engine, deletes what is gone.

It knows nothing of the job's claim and end; what it raises ends the job.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transom.cluster.catalog import Catalog
from transom.target.errors import BucketExists, EtlUnavailable, NoSuchBucket, ReadOnlyStore, StoreFull
from transom.target.etl.registry import Registry
from transom.target.jobs.alarm import Alarm
from transom.target.jobs.check import Plans, check_order
from transom.target.jobs.dispatch import Dispatch
from transom.target.jobs.engines.base import Engine
from transom.target.jobs.last_stage import LastStages
from transom.target.jobs.order import Order
from transom.target.jobs.perform import TransformWork
from transom.target.jobs.records import Item, Job, Outcome
from transom.target.jobs.select import select, select_again
from transom.target.jobs.site import Site
from transom.target.jobs.sync import delete_gone
from transom.target.jobs.tally import Tally
from transom.target.jobs.worklist import Worklist

_NO_BUCKET = (NoSuchBucket.__name__, ReadOnlyStore.__name__)
_STARTING_S = 120.0  # for an ETL whose worker is just coming up
_PAUSE_S = 0.1


class JobStopped(Exception):
    """The job ends before all is done; the message says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one job, with all it works with but a site; `folder` is the job's own, `etls` the ETLs' catalog."""

    job: Job
    engine: Engine
    folder: Path
    worklist: Worklist
    tally: Tally
    alarm: Alarm
    etls: Catalog

    @property
    def order(self) -> Order:
        """What was asked for."""
        return self.job.order

    @property
    def width(self) -> int:
        """How many tasks are under way at once."""
        return self.order.concurrency or self.engine.cores

    def over(self, site: Site) -> str:
        """Do what the order says; return what there is to say about it. Raises whatever ends the job early."""
        self._check_owner(site)
        plans = self._plans(Registry(site.pipelines.transformers, self.etls))
        if self.order.kind == "sort":
            return self._sort(site)
        self._list(site, plans)
        self._ensure_bucket(site)
        self._transform(site, plans)
        self._delete_gone(site)
        return self._undecided()

    def _plans(self, registry: Registry) -> Plans:
        """Plan the pipelines as the ETLs are now; wait a while for one that is just starting."""
        give_up = time.monotonic() + _STARTING_S
        while True:
            try:
                return check_order(self.order, registry)
            except EtlUnavailable as error:
                if error.retry_after_s is None or time.monotonic() > give_up:
                    raise
            self.alarm.check()
            time.sleep(_PAUSE_S)

    def _check_owner(self, site: Site) -> None:
        """Refuse buckets that were made anew by somebody else since the job was asked for: it waited, or is a retry."""
        for place in filter(None, (self.order.source, self.order.destination)):
            with suppress(NoSuchBucket):
                if site.wait(site.store.bucket(place.bucket)).owner != self.job.owner:
                    raise JobStopped(f"the bucket '{place.bucket}' is somebody else's by now: a job takes one's own")

    def _ensure_bucket(self, site: Site) -> None:
        """Make the destination's bucket if there is none: once all is known that can be refused."""
        if self.order.destination is None or self.order.dry_run:
            return
        name = self.order.destination.bucket
        try:
            site.wait(site.store.bucket(name))
        except NoSuchBucket:
            if name in self.etls.snapshot().views:
                raise JobStopped(f"'{name}' is a view by now: it takes no writes. Name a bucket") from None
            with suppress(BucketExists):
                site.wait(site.store.create_bucket(name, owner=self.job.owner))
            self._check_owner(site)  # of one that was made meanwhile

    # --- transforming -----------------------------------------------------------------------------

    def _list(self, site: Site, plans: Plans) -> None:
        """Have the worklist whole: planned anew if it isn't, or with what failed to be done again."""
        self.tally.enter("listing")
        if not self.worklist.sealed:
            self.worklist.clear()
            site.wait(self.alarm.over(select(site, self.order, plans.made, self.worklist)))
            self.worklist.seal()
        if self.job.retries and self.worklist.retry_failed(self.job.retries):
            site.wait(self.alarm.over(select_again(site, self.order, plans.made, self.worklist)))

    def _transform(self, site: Site, plans: Plans) -> None:
        self.tally.enter("inspecting" if self.order.kind == "inspect" else "transforming")
        counts = self.tally.counts
        if counts.failed and not self.order.continue_on_error:
            error = self.worklist.errors(limit=1)[0]
            raise JobStopped(f"'{error.key}' failed, and the job was to stop then: {error.message}")
        place_of = partial(self.engine.place_of, self.order.source.bucket)
        stages = [stage.etl for plan in (plans.judged, plans.made) if plan is not None for stage in plan.stages]
        saying = LastStages(self.folder) if len(stages) > 1 else None
        stage_of = saying.take if saying is not None else lambda _n: "".join(stages)
        dispatch = Dispatch(self.worklist, counts.total - counts.done, self.width, place_of, stage_of)
        order = self.order.model_copy(update={"keys": None})  # a million keys would be sent to every worker
        work = TransformWork(self.job.id, order, plans.made, self.job.owner, plans.judged, saying)
        with closing(self.engine.run(work, dispatch, width=self.width, look=self._idle)) as results:
            for finished in results:
                decided = dispatch.take(finished)
                counted = () if finished.result is None else finished.result.outcomes  # who died counts nothing
                for outcome in decided[len(counted) :]:
                    if outcome.stage:
                        site.pipelines.metrics.failed(outcome.stage, outcome.code)
                self._note(decided, (*finished.task.items, *dispatch.convicted))
                self.alarm.check()

    def _undecided(self) -> str:
        """What to say of objects that the job ends without; those left by a run that was stopped, before a retry."""
        counts = self.worklist.counts()
        left = counts.total - counts.done
        if not left:
            return ""
        rest = f"{left} of its objects were never begun; start the same job anew for the rest"
        if self.worklist.pending(0, 1):
            raise JobStopped(rest)
        return rest

    def _idle(self) -> None:
        self.alarm.check()
        self.tally.tell_in_time()

    def _note(self, outcomes: Iterable[Outcome], items: Iterable[Item]) -> None:
        """Keep what became of objects; raise if the job isn't to go on after that."""
        decided, by_n = list(outcomes), {item.n: item for item in items}
        self.tally.note(decided, by_n)
        for outcome in decided:
            if outcome.code == StoreFull.__name__:
                raise StoreFull(outcome.message)
            if outcome.code in _NO_BUCKET and not outcome.stage:  # each of the others would fail likewise
                raise JobStopped(outcome.message or f"a bucket of the job is gone: {outcome.code}")
            if outcome.state == "failed" and not self.order.continue_on_error:
                raise JobStopped(f"'{by_n[outcome.n].key}' failed, and the job was to stop then: {outcome.message}")

    def _delete_gone(self, site: Site) -> None:
        """With `sync`, remove what has no source any more; not after a failure, where a source may just be hidden."""
        counts = self.worklist.counts()
        if not self.order.sync or counts.failed or counts.done < counts.total:
            return
        self.tally.enter("deleting")
        before = 0 if self.order.dry_run else counts.deleted  # by a run of this job that was killed then, or retried

        def tell(deleted: int) -> None:
            self.worklist.deleted(before + deleted)

        site.wait(self.alarm.over(delete_gone(site.store, self.order, self.worklist, tell)))

    # --- sorting ----------------------------------------------------------------------------------

    def _sort(self, site: Site) -> str:
        # only here: most jobs don't sort
        from transom.target.jobs.sort.sorting import Sort, sort_job

        if self.job.retries and self.worklist.counts().failed:
            self.worklist.clear()  # records may belong to other shards now
        made = sort_job(
            Sort(
                site=site,
                order=self.order,
                engine=self.engine,
                worklist=self.worklist,
                folder=self.folder,
                owner=self.job.owner,
                width=self.width,
                look=self._look,
                planned=lambda: self._ensure_bucket(site),
                note=lambda outcome, item: self._note([outcome], [item]),
            )
        )
        return "; ".join(filter(None, [made, self._left_over(site)]))

    def _left_over(self, site: Site) -> str:
        """What becomes of shards that an earlier sort made and this one doesn't; not after a failure."""
        from transom.target.jobs.sort.leftover import delete, left_over

        order, destination = self.order, self.order.destination
        if destination is None or self.worklist.counts().failed:
            return ""
        shards = site.wait(self.alarm.over(left_over(site.store, order.source, destination, self.worklist)))
        if not shards:
            return ""
        if not order.sync:
            known = f"{len(shards)} of an earlier sort of this source, such as '{shards[0].key}',"
            return f"{known} are there still: sync deletes them"
        before = 0 if order.dry_run else self.tally.counts.deleted  # by a run of this job that was killed
        self.tally.enter("deleting")
        deleted = len(shards) if order.dry_run else site.wait(self.alarm.over(delete(site.store, shards)))
        self.worklist.deleted(before + deleted)
        return ""

    def _look(self, phase: str) -> None:
        if phase != self.tally.phase:
            self.tally.enter(phase)
        self._idle()
