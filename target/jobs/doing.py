"""One batch under way: opens, transforms and writes object by object, small outputs together.

It runs in a thread that is left alone when a transformer hangs: whoever waits for it then takes what there is. The
write is left to whoever waits: the next batch may be under way by then.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from transom.target.errors import EtlSkipped, EtlTimeout, EtlUnavailable, SlowDown, SourceChanged, TargetError
from transom.target.etl.watch import Watch
from transom.target.jobs.last_stage import LastStages
from transom.target.jobs.making import Made, Maker, Task
from transom.target.jobs.records import Item, Outcome
from transom.target.jobs.site import Site
from transom.target.store.base import ObjectInfo, Whole

MIB = 1024 * 1024
HELD = 16 * MIB  # so much of small outputs in memory ends a batch: making more would wait for the disk
_PAUSES_S = (0.1, 0.5, 2.0)
_TRANSIENT = (EtlUnavailable, SlowDown, SourceChanged)
_log = logging.getLogger("transom.jobs")


class GivenUpError(Exception):
    """Nobody waits for the batch any more."""


class Doing:
    """Does `items` one after the other; `outcomes` are those decided so far, in the order in which they were."""

    def __init__(
        self,
        task: Task,
        site: Site,
        items: Sequence[Item],
        *,
        alone: bool = False,
        saying: LastStages | None = None,
    ) -> None:
        """With `saying`, say which stage is at work.

        Unless they are done `alone`, objects whose ETL's worker died are only `suspects`: another object may have been
        with that worker, and have killed it.
        """
        self.outcomes: list[Outcome] = []
        self.suspects: list[Outcome] = []
        self._alone = alone
        self._task = task
        self._site = site
        self._items = items
        self._saying = saying
        self._maker = Maker(task, site, self._begin, self._claim)
        self._begun = 0
        self._watch: Watch | None = None
        self._held: list[tuple[Outcome, Whole]] = []
        self._held_size = 0

    # --- from the thread that waits ---------------------------------------------------------------

    def left_s(self) -> float | None:
        """Seconds that the object under way may still take, negative beyond; None where there is none just now."""
        watch = self._watch
        return None if watch is None else watch.left_s()

    def give_up(self, grace_s: float) -> bool:
        """Decide that the object under way has taken too long, if it has: so long past its deadline.

        The thread that does the batch changes nothing more then: the caller may `write` what is held.
        """
        watch = self._watch  # looked at once: another object may have been begun since the caller looked
        if watch is None or watch.left_s() >= -grace_s or not watch.settle():
            return False
        self.outcomes.append(self._failed(self._items[self._begun - 1], watch.timeout()))
        return True

    @property
    def unfinished(self) -> tuple[Item, ...]:
        """The items that were not begun."""
        return tuple(self._items[self._begun :])

    # --- the batch --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do the batch but for the `write`, as far as what is held allows. Ends early once it was given up, too."""
        try:
            with self._holding_workers():
                for item in self._items:
                    self._begun += 1
                    await self._decide(item)
                    if self._held_size >= HELD:
                        return
        except GivenUpError:
            return

    async def write(self) -> None:
        """Write what is held, and so decide it."""
        held, self._held, self._held_size = self._held, [], 0
        destination = self._task.order.destination
        if not held or destination is None:
            return
        results: Sequence[ObjectInfo | Exception]
        try:
            results = await self._site.store.put_many(destination.bucket, [whole for _, whole in held])
        except Exception as error:
            results = [error] * len(held)
        for (outcome, _), result in zip(held, results, strict=True):
            self.outcomes.append(outcome if isinstance(result, ObjectInfo) else _failure(outcome.n, result))

    def _holding_workers(self) -> AbstractContextManager[None]:
        plan = self._task.whole_plan
        return nullcontext() if plan is None else self._site.pipelines.holding(plan)

    async def _decide(self, item: Item) -> None:
        """Do one object, again where what was in the way may pass."""
        for pause_s in (*_PAUSES_S, None):
            made: Made | BaseException
            try:
                made = await self._maker.make(item)
            except GivenUpError:  # of a stream that ended too late: its watch was claimed there
                raise
            except BaseException as error:  # a native extension's panic is no Exception
                made = error
            self._claim()
            if pause_s is None or not isinstance(made, _TRANSIENT):
                break
            await asyncio.sleep(pause_s)
        if isinstance(made, tuple):
            self._held.append(made)
            self._held_size += len(made[1].data)
        elif isinstance(made, TargetError) and made.breaks and not (self._alone or isinstance(made, EtlTimeout)):
            self.suspects.append(_failure(item.n, made))
        else:
            self.outcomes.append(self._failed(item, made) if isinstance(made, BaseException) else made)

    def _begin(self, name: str, timeout_s: float) -> Watch:
        if self._saying is None:
            watch = Watch(name, timeout_s)
        else:
            watch = self._saying.watch(self._items[self._begun - 1].n, name, timeout_s)
        self._watch = watch
        return watch

    def _claim(self) -> None:
        """End the object under way, unless it was given up."""
        watch, self._watch = self._watch, None
        if watch is not None and not watch.settle():
            raise GivenUpError

    def _failed(self, item: Item, error: BaseException) -> Outcome:
        if isinstance(error, TargetError) and error.etl and not isinstance(error, EtlSkipped):
            self._site.pipelines.metrics.failed(error.etl, type(error).__name__)
        return _failure(item.n, error)


def _failure(n: int, error: BaseException) -> Outcome:
    if isinstance(error, EtlSkipped):
        return Outcome(n, "skipped", stage=error.etl, message=error.message)
    if isinstance(error, TargetError):
        return Outcome(n, "failed", stage=error.etl, code=type(error).__name__, message=error.message)
    _log.error("an object of a job failed", exc_info=error)
    code = "InternalError" if isinstance(error, OSError | sqlite3.Error) else "EtlFailed"
    return Outcome(n, "failed", code=code, message=f"{type(error).__name__}: {error}")
