"""Starts runs and joins them: one run of a result serves every waiter, in this process and in the others.

A cached run goes on to its deadline with no waiter left; a direct run stops when its client leaves. Both hold a slot of
each of their ETLs. Nothing here knows of HTTP.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from transom.cluster.records import CatalogError
from transom.target.errors import (
    EtlFailed,
    EtlInputRejected,
    EtlSkipped,
    SourceChanged,
    StoreFull,
    TargetError,
)
from transom.target.etl.error_log import ErrorEntry, ErrorLog
from transom.target.etl.limits import Gate, Slot
from transom.target.etl.metrics import EtlMetrics
from transom.target.etl.outputs import CachedRun, DirectRun, OpenResult, not_ready
from transom.target.etl.pipeline import Pipelines
from transom.target.etl.plan import Identity, Plan
from transom.target.etl.results import Refusal, Result, Results
from transom.target.etl.runtimes.jobs import cause_of
from transom.target.etl.threads import RunThreads, unexpected
from transom.target.etl.turns import Turns
from transom.target.etl.watch import Watch
from transom.target.store.base import ObjectInfo, ObjectReader, Store

_REFUSED_FOR_S = 60.0
_SMALL = 256 * 1024  # of which a copy costs less than a thread
_ENDING_S = 5.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A result that somebody wants: a plan over one version of an object, and for some plans which generation."""

    plan: Plan
    source: ObjectInfo
    identity: Identity
    generation: int = 0

    @property
    def id(self) -> str:
        """The result's id."""
        return self.identity.id(self.generation)


@dataclass(frozen=True, slots=True)
class Failures:
    """Where runs that failed are written down, for people and for graphs."""

    log: ErrorLog
    metrics: EtlMetrics

    def note(self, wanted: Wanted, error: TargetError) -> None:
        """Note a failed run, under the stage to blame; neither what a transformer leaves out is one, nor what is begun
        anew since the object was replaced. Blocking.
        """
        if isinstance(error, EtlSkipped | SourceChanged):
            return
        plan, code = wanted.plan, type(error).__name__
        etl = error.etl or plan.stages[0].etl
        self.metrics.failed(etl, code)
        source = wanted.source
        with suppress(sqlite3.Error):  # a record that can't be written, on a full disk, is no reason to fail otherwise
            self.log.add(ErrorEntry(etl, time.time(), source.bucket, source.key, code, error.message, plan.name))


class Runner:
    """Starts runs and joins them."""

    def __init__(
        self,
        store: Store,
        results: Results,
        pipelines: Pipelines,
        gate: Gate,
        turns: Turns,
        failures: Failures,
    ) -> None:
        self._store = store
        self._results = results
        self._pipelines = pipelines
        self._gate = gate
        self._turns = turns
        self._failures = failures
        self._runs: dict[str, CachedRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = RunThreads(gate)
        self._closing = False

    def known(self, wanted: Wanted) -> OpenResult | None:
        """The finished result if it is cached; raises what the transformer refused it with lately."""
        return None if self._results.is_absent(wanted.id) else self._found(wanted)

    def known_size(self, wanted: Wanted) -> int | None:
        """The size of the result if it is cached, without opening it; raises what it was refused with lately."""
        result = self._look(wanted)
        return None if result is None else result.size

    def under_way(self, wanted: Wanted) -> bool:
        """Whether some process is making the result for the cache just now."""
        result_id = wanted.id
        return result_id in self._runs or self._turns.under_way(result_id)

    def start(self, wanted: Wanted) -> CachedRun:
        """Join the run that makes this result, or start it."""
        run = self._runs.get(wanted.id)
        if run is None:
            run = CachedRun(self._pipelines.describe(wanted.plan, wanted.source)[0])
            self._runs[wanted.id] = run
            self._spawn(self._make(run, wanted))
        return run

    async def materialise(self, wanted: Wanted, wait_s: float) -> OpenResult:
        """The finished result, made if need be; raises SlowDown when `wait_s` passes first."""
        give_up = time.monotonic() + wait_s
        while time.monotonic() < give_up:
            found = self._found(wanted)
            if found is not None:
                return found
            run = self.start(wanted)
            await run.wait(None, give_up - time.monotonic())
            opened = run.opened()
            if opened is not None:
                return opened
        raise not_ready()

    async def direct(self, wanted: Wanted, give_up: float) -> DirectRun:
        """Start a run for one client; raises SlowDown when no slot comes free before `give_up`."""
        plan = wanted.plan
        held = self._pipelines.hold(plan)
        try:
            reader, slot = await self._enter(wanted, give_up)
            watch = self._watch(plan)
            scratch = self._results.scratch_folder
            try:
                known = _at_once(reader) if self._pipelines.only_waits(plan) else None
                content_type, size, pieces = self._pipelines.begin(plan, reader, watch, scratch, known)
            except BaseException:
                reader.close()
                slot.release()
                raise
            run = DirectRun(content_type, size, watch)
            work = partial(_feed, run, reader, pieces)
            told = partial(self._ended, run, wanted, held)
            self._threads.start(work, watch, slot, _etls(plan), told, on_loop=known is not None)
        except BaseException:
            self._pipelines.let_go(held)
            raise
        return run

    async def close(self) -> None:
        """Give up what is under way."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        self._threads.close()
        await asyncio.sleep(0)  # what ran on the event loop is told of its end now
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_ENDING_S)
        self._pipelines.close()

    # --- one cached run -----------------------------------------------------------------------

    async def _make(self, run: CachedRun, wanted: Wanted) -> None:
        error: TargetError | None = EtlFailed(f"the run of ETL '{wanted.plan.name}' was given up: the server stops")
        try:
            async with self._turns.turn(wanted.id, lambda: self._made_elsewhere(wanted)) as ours:
                error = await self._run(run, wanted) if ours else None
        except TargetError as failure:
            error = failure
        except Exception as failure:
            error = unexpected(wanted.plan.name, failure)
        finally:
            self._runs.pop(wanted.id, None)
            run.finish(error)
            if error is not None:
                _aside(run.drop)

    def _made_elsewhere(self, wanted: Wanted) -> bool:
        found = self._found(wanted)  # raises what it was refused with
        if found is None:
            return False
        found.close()
        return True

    async def _run(self, run: CachedRun, wanted: Wanted) -> TargetError | None:
        with self._pipelines.holding(wanted.plan):
            return await self._run_held(run, wanted)

    async def _run_held(self, run: CachedRun, wanted: Wanted) -> TargetError | None:
        reader, slot = await self._enter(wanted, time.monotonic() + self._timeout_s(wanted.plan))
        watch = self._watch(wanted.plan)
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[TargetError | None] = loop.create_future()
        work = partial(self._write, run, wanted, reader, watch, loop)
        self._threads.start(work, watch, slot, _etls(wanted.plan), partial(_tell, outcome))
        error = await self._cause(wanted, await outcome)
        if isinstance(error, EtlSkipped | EtlInputRejected):
            kind: Literal["skip", "reject"] = "skip" if isinstance(error, EtlSkipped) else "reject"
            refusal = Refusal(kind, error.message)
            await asyncio.to_thread(self._results.refuse, wanted.id, refusal, _REFUSED_FOR_S)
        await self._judge(wanted, error)
        return error

    def _write(
        self, run: CachedRun, wanted: Wanted, reader: ObjectReader, watch: Watch, loop: asyncio.AbstractEventLoop
    ) -> None:
        path = self._results.scratch(wanted.id)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        run.attach(fd)
        produced = 0
        try:
            made = self._pipelines.produce(wanted.plan, reader, watch, self._results.scratch_folder)
            with closing(reader), closing(made) as pieces:
                for piece in pieces:
                    _write_all(fd, piece)
                    produced += len(piece)
                    # a non-deterministic result shows no byte before it is whole: a rerun would make others
                    if wanted.identity.deterministic:
                        run.wrote(produced, loop)
            if not watch.settle():
                raise watch.timeout()  # somebody was told so already, and may have begun another run
            self._results.add(
                wanted.id,
                path,
                base=wanted.identity.base,
                generation=wanted.generation,
                content_type=run.content_type,
            )
            loop.call_soon_threadsafe(partial(run.grow, produced, whole=True))
        finally:
            path.unlink(missing_ok=True)

    # --- one direct run -----------------------------------------------------------------------

    def _ended(self, run: DirectRun, wanted: Wanted, held: Sequence[int], error: TargetError | None) -> None:
        try:
            is_noted = not self._closing and (error is not None or bool(self._broken(wanted.plan)))
        except CatalogError:
            is_noted = True
        if is_noted:
            self._spawn(self._end(run, wanted, held, error))
        else:
            run.finish(error)
            self._pipelines.let_go(held)

    async def _end(self, run: DirectRun, wanted: Wanted, held: Sequence[int], error: TargetError | None) -> None:
        try:
            error = await self._cause(wanted, error)
            await self._judge(wanted, error)
        finally:
            run.finish(error)
            self._pipelines.let_go(held)

    # --- any run ------------------------------------------------------------------------------

    async def _cause(self, wanted: Wanted, error: TargetError | None) -> TargetError | None:
        return None if error is None else await cause_of(error, wanted.plan, wanted.source, self._store)

    async def _judge(self, wanted: Wanted, error: TargetError | None) -> None:
        """Tell the circuits: a crash or a deadline is that of the stage it names. Write down what failed."""
        if error is None:
            broken = self._broken(wanted.plan)
            if broken:
                await asyncio.to_thread(self._gate.succeeded, broken)
            return
        if error.breaks and error.etl:
            await asyncio.to_thread(self._gate.broke, error.etl)
        await asyncio.to_thread(self._failures.note, wanted, error)

    def _broken(self, plan: Plan) -> list[str]:
        return [stage.etl for stage in plan.stages if self._gate.has_failed(stage.etl)]

    def _found(self, wanted: Wanted) -> OpenResult | None:
        result = self._look(wanted)
        return None if result is None else self._open(result)

    def _look(self, wanted: Wanted) -> Result | None:
        found = self._results.get(wanted.id)
        if isinstance(found, Refusal):
            raise EtlSkipped(found.message) if found.kind == "skip" else EtlInputRejected(found.message)
        return found

    async def _enter(self, wanted: Wanted, give_up: float) -> tuple[ObjectReader, Slot]:
        """The object, and a place for the run; raises SlowDown when none comes free before `give_up`."""
        reader = await self._reader(wanted)
        try:
            return reader, await self._gate.enter(self._places(wanted.plan), give_up)
        except BaseException:
            reader.close()
            raise

    async def _reader(self, wanted: Wanted) -> ObjectReader:
        reader = await self._store.open(wanted.source.bucket, wanted.source.key)
        if reader.info.etag != wanted.source.etag:
            reader.close()
            raise SourceChanged("the object was replaced while it was asked for")
        return reader

    def _open(self, result: Result) -> OpenResult | None:
        try:
            fd = os.open(result.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            _aside(partial(self._results.forget, result.id))
            return None
        if os.fstat(fd).st_size != result.size:
            os.close(fd)
            _aside(partial(self._results.forget, result.id))
            return None
        return OpenResult(fd, result.size, result.content_type)

    def _places(self, plan: Plan) -> list[tuple[str, int]]:
        return [(stage.etl, stage.concurrency or self._gate.limits.concurrency) for stage in plan.stages]

    def _watch(self, plan: Plan) -> Watch:
        return Watch(plan.name, self._timeout_s(plan))

    def _timeout_s(self, plan: Plan) -> float:
        return sum(stage.timeout_s or self._gate.limits.timeout_s for stage in plan.stages)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _feed(run: DirectRun, reader: ObjectReader, pieces: Generator[bytes, None, None]) -> None:
    try:
        try:
            run.feed(pieces)
        finally:
            pieces.close()
    finally:
        reader.close()


def _at_once(reader: ObjectReader) -> bytes | None:
    """A small object whole, if reading it waits for no disk."""
    size = reader.info.size
    if size > _SMALL:
        return None
    return reader.at_once(0, size) if size else b""


def _etls(plan: Plan) -> list[str]:
    return [stage.etl for stage in plan.stages]


def _tell(outcome: asyncio.Future[TargetError | None], error: TargetError | None) -> None:
    if not outcome.done():  # whoever waited was cancelled
        outcome.set_result(error)


def _aside(work: Callable[[], None]) -> None:
    """Do something that blocks, and that nobody waits for."""
    with suppress(RuntimeError):  # the threads are shut down: all ends
        asyncio.get_running_loop().run_in_executor(None, work)


def _write_all(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("The disk has no room for the result.") from error
        raise
