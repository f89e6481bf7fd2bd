"""Starts runs and joins them: one run of a result serves every waiter, in this process and in the others.

A cached run goes on to its deadline with no waiter left; a direct run stops when its client leaves. Both hold a slot of
each of their ETLs. Nothing here knows of HTTP.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from transom.target.errors import (
    EtlCrashed,
    EtlFailed,
    EtlInputRejected,
    EtlSkipped,
    EtlTimeout,
    SourceChanged,
    StoreFull,
    TargetError,
)
from transom.target.etl.error_log import ErrorEntry, ErrorLog
from transom.target.etl.limits import Gate, Slot
from transom.target.etl.locks import ByteLocks
from transom.target.etl.metrics import EtlMetrics
from transom.target.etl.outputs import CachedRun, DirectRun, OpenResult, not_ready
from transom.target.etl.pipeline import Pipelines
from transom.target.etl.plan import Identity, Plan
from transom.target.etl.results import Refusal, Result, Results
from transom.target.etl.watch import AbandonedError, Watch
from transom.target.store.base import ObjectInfo, ObjectReader, Store

_REFUSED_FOR_S = 60.0
_DEADLINE_GRACE_S = 0.5  # a worker past its deadline is killed by the run's own thread first
_TURN_POLL_S = (0.005, 0.1)
_THREADS = 128  # lost threads keep their place here, so there are many more than slots
_log = logging.getLogger("transom.etl")


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
        """Note a failed run, under the stage to blame; what a transformer leaves out is none. Blocking."""
        if isinstance(error, EtlSkipped):
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
        locks: ByteLocks,
        failures: Failures,
    ) -> None:
        self._store = store
        self._results = results
        self._pipelines = pipelines
        self._gate = gate
        self._locks = locks
        self._failures = failures
        self._runs: dict[str, CachedRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="etl")

    def known(self, wanted: Wanted) -> OpenResult | None:
        """The finished result if it is cached; raises what the transformer refused it with lately."""
        result = self._results.get(wanted.id)
        if result is not None:
            return self._open(result)
        self._raise_refusal(wanted)
        return None

    def known_size(self, wanted: Wanted) -> int | None:
        """The size of the result if it is cached, without opening it; raises what it was refused with lately."""
        result = self._results.get(wanted.id)
        if result is None:
            self._raise_refusal(wanted)
            return None
        return result.size

    def under_way(self, wanted: Wanted) -> bool:
        """Whether some process is making the result for the cache just now."""
        return wanted.id in self._runs or self._locks.held_elsewhere(_turn_offset(wanted.id))

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
            found = self.known(wanted)
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
        with ExitStack() as stack:
            stack.enter_context(self._pipelines.holding(wanted.plan))
            reader = await self._reader(wanted)
            try:
                slot = await self._gate.enter(self._places(wanted.plan), give_up)
            except BaseException:
                reader.close()
                raise
            watch = self._watch(wanted.plan)
            run = DirectRun(self._pipelines.describe(wanted.plan, wanted.source)[0], watch)
            held = stack.pop_all()

        def work() -> None:
            with self._pieces(wanted, reader, watch) as pieces:
                run.feed(pieces)

        async def drive() -> None:
            with held:
                run.finish(await self._in_thread(wanted, slot, watch, work))

        self._spawn(drive())
        return run

    async def close(self) -> None:
        """Give up what is under way."""
        for task in list(self._tasks):
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pipelines.close()

    # --- one cached run -----------------------------------------------------------------------

    async def _make(self, run: CachedRun, wanted: Wanted) -> None:
        error: TargetError | None = EtlFailed(f"the run of ETL '{wanted.plan.name}' was given up: the server stops")
        try:
            async with _Turn(self._locks, wanted.id, lambda: self._made_elsewhere(wanted)) as ours:
                error = await self._run(run, wanted) if ours else None
        except TargetError as failure:
            error = failure
        except Exception as failure:
            error = _unexpected(wanted.plan.name, failure)
        finally:
            self._runs.pop(wanted.id, None)
            run.finish(error)
            if error is not None:
                with suppress(RuntimeError):  # the threads are shut down: all ends
                    self._threads.submit(run.drop)

    def _made_elsewhere(self, wanted: Wanted) -> bool:
        found = self.known(wanted)  # raises what it was refused with
        if found is None:
            return False
        found.close()
        return True

    async def _run(self, run: CachedRun, wanted: Wanted) -> TargetError | None:
        with self._pipelines.holding(wanted.plan):
            return await self._run_held(run, wanted)

    async def _run_held(self, run: CachedRun, wanted: Wanted) -> TargetError | None:
        reader = await self._reader(wanted)
        try:
            slot = await self._gate.enter(self._places(wanted.plan), time.monotonic() + self._timeout_s(wanted.plan))
        except BaseException:
            reader.close()
            raise
        watch = self._watch(wanted.plan)
        loop = asyncio.get_running_loop()
        return await self._in_thread(wanted, slot, watch, lambda: self._write(run, wanted, reader, watch, loop))

    def _write(
        self, run: CachedRun, wanted: Wanted, reader: ObjectReader, watch: Watch, loop: asyncio.AbstractEventLoop
    ) -> None:
        path = self._results.scratch(wanted.id)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        run.attach(fd)
        produced = 0
        try:
            with self._pieces(wanted, reader, watch) as pieces:
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
        except (EtlSkipped, EtlInputRejected) as refused:
            kind = "skip" if isinstance(refused, EtlSkipped) else "reject"
            self._results.refuse(wanted.id, Refusal(kind, refused.message), _REFUSED_FOR_S)
            raise
        finally:
            path.unlink(missing_ok=True)

    # --- any run ------------------------------------------------------------------------------

    @contextmanager
    def _pieces(self, wanted: Wanted, reader: ObjectReader, watch: Watch) -> Iterator[Iterator[bytes]]:
        pieces = self._pipelines.produce(wanted.plan, reader, watch, self._results.scratch_folder)
        try:
            yield pieces
        finally:
            pieces.close()  # stops its workers too
            reader.close()

    async def _in_thread(
        self, wanted: Wanted, slot: Slot, watch: Watch, work: Callable[[], None]
    ) -> TargetError | None:
        """Run `work` in a thread; past the deadline, fail without the thread and count its slot lost for now."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, _caught, work, watch)
        late: list[str] = []
        future.add_done_callback(lambda _: self._returned(slot, late))
        done: set[asyncio.Future[TargetError | None]] = set()
        while not done and watch.left_s() > -_DEADLINE_GRACE_S:
            done, _ = await asyncio.wait([future], timeout=max(watch.left_s(), 0) + _DEADLINE_GRACE_S)
        error: TargetError | None
        if done or not watch.settle():
            error = await future
        else:
            error = watch.timeout()
            late += [error.etl] if error.etl else [stage.etl for stage in wanted.plan.stages]
            for etl in late:
                self._gate.lost(etl, 1)
        await self._judge(wanted, error)
        return error

    def _returned(self, slot: Slot, late: list[str]) -> None:
        slot.release()
        for etl in late:
            self._gate.lost(etl, -1)

    async def _judge(self, wanted: Wanted, error: TargetError | None) -> None:
        """Tell the circuits: a crash or a deadline is that of the stage it names. Write down what failed."""
        if error is None:
            broken = [stage.etl for stage in wanted.plan.stages if self._gate.has_failed(stage.etl)]
            if broken:
                await asyncio.to_thread(self._gate.succeeded, broken)
            return
        if isinstance(error, EtlCrashed | EtlTimeout) and error.etl:
            await asyncio.to_thread(self._gate.broke, error.etl)
        await asyncio.to_thread(self._failures.note, wanted, error)

    def _raise_refusal(self, wanted: Wanted) -> None:
        refusal = self._results.refusal(wanted.id)
        if refusal is not None:
            raise EtlSkipped(refusal.message) if refusal.kind == "skip" else EtlInputRejected(refusal.message)

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
            self._threads.submit(self._results.forget, result.id)
            return None
        if os.fstat(fd).st_size != result.size:
            os.close(fd)
            self._threads.submit(self._results.forget, result.id)
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


class _Turn:
    """Waits for the right to make a result: True once it is ours, False when somebody else has made it meanwhile."""

    def __init__(self, locks: ByteLocks, result_id: str, made: Callable[[], bool]) -> None:
        self._locks = locks
        self._offset = _turn_offset(result_id)
        self._made = made
        self._ours = False

    async def __aenter__(self) -> bool:
        pause = _TURN_POLL_S[0]
        while True:
            self._ours = self._locks.try_lock(self._offset)
            try:
                made = self._made()
            except BaseException:
                await self.__aexit__()
                raise
            if made or self._ours:
                if made:
                    await self.__aexit__()
                return not made
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _TURN_POLL_S[1])

    async def __aexit__(self, *_: object) -> None:
        if self._ours:
            self._locks.unlock(self._offset)
            self._ours = False


def _turn_offset(result_id: str) -> int:
    return int(result_id[:15], 16)


def _caught(work: Callable[[], None], watch: Watch) -> TargetError | None:
    """Run `work` and return what it failed with: nothing may pass for a run that ended well."""
    try:
        work()
    except TargetError as error:
        return error
    except AbandonedError:
        return EtlFailed(f"nobody read what ETL '{watch.pipeline}' made")
    except BaseException as error:  # a native extension's panic is no Exception
        return _unexpected(watch.pipeline, error)
    return None


def _unexpected(pipeline: str, error: BaseException) -> EtlFailed:
    _log.error("the run of ETL %s failed", pipeline, exc_info=error)
    return EtlFailed(f"the run of ETL '{pipeline}' failed: {type(error).__name__}")


def _write_all(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("The disk has no room for the result.") from error
        raise
