"""Runs under way: one run of a result serves every waiter, in this process and in the others.

A cached run writes to a file and goes on to its deadline with no waiter left; a direct run feeds one client and stops
when that client leaves. Both hold a slot of each of their ETLs. Nothing here knows of HTTP.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from transom.target.errors import (
    EtlCrashed,
    EtlFailed,
    EtlInputRejected,
    EtlSkipped,
    EtlTimeout,
    SlowDown,
    SourceChanged,
    TargetError,
)
from transom.target.etl.limits import Gate, Slot
from transom.target.etl.locks import ByteLocks
from transom.target.etl.pipeline import Pipelines
from transom.target.etl.plan import Identity, Plan
from transom.target.etl.results import Refusal, Result, Results
from transom.target.store.base import ObjectInfo, ObjectReader, Store

MIB = 1024 * 1024
HEAD_SIZE = MIB
_CHUNK = MIB
_AHEAD = 4
_REFUSED_FOR_S = 60.0
_DEADLINE_GRACE_S = 0.5
_POLL_S = (0.005, 0.1)


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be made: a plan over one version of an object, and for a non-deterministic one which generation."""

    plan: Plan
    source: ObjectInfo
    identity: Identity
    generation: int = 0

    @property
    def id(self) -> str:
        """The result's id."""
        return self.identity.id(self.generation)


class OpenResult:
    """A finished result opened for reading; it stays readable when the cache evicts it. Close it."""

    def __init__(self, fd: int, size: int, content_type: str) -> None:
        self._fd = fd
        self.size = size
        self.content_type = content_type

    def read(self, start: int, stop: int) -> bytes:
        """Read [start, stop) at once; raises SourceChanged rather than return less."""
        data = os.pread(self._fd, stop - start, start)
        if len(data) != stop - start:
            raise SourceChanged("a cached result ended before its size")
        return data

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield [start, stop) and close."""
        try:
            while start < stop:
                end = min(start + _CHUNK, stop)
                yield await asyncio.to_thread(self.read, start, end)
                start = end
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()  # a body that was never begun has no other chance


class CachedRun:
    """One run that makes a result. Its file can be read while it grows."""

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type
        self.produced = 0
        self.done = False
        self.error: TargetError | None = None
        self._fd = -1
        self._whole = False
        self._written = 0
        self._telling = False
        self._changed = asyncio.Event()

    async def wait(self, size: int | None, timeout_s: float) -> None:
        """Wait until `size` bytes are there (None: all of them) or it ended.

        Raises what the run failed with, and SlowDown when `timeout_s` passes first: the run goes on.
        """
        give_up = time.monotonic() + timeout_s
        while not self.done and (size is None or self.produced < size):
            left = give_up - time.monotonic()
            try:
                await asyncio.wait_for(self._changed.wait(), left if left < float("inf") else None)
            except TimeoutError:
                raise SlowDown(
                    "The result is not ready yet; the work goes on. Ask again to join it.", retry_after_s=1
                ) from None
        if self.error is not None:
            raise self.error

    def opened(self) -> OpenResult | None:
        """The finished result, or None when another process made it."""
        return OpenResult(os.dup(self._fd), self.produced, self.content_type) if self._whole else None

    async def follow(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come, to the end; raises what the run fails with."""
        offset = 0
        while True:
            await self.wait(offset + 1, float("inf"))
            if offset == self.produced and self.done:
                return
            piece = await asyncio.to_thread(os.pread, self._fd, min(_CHUNK, self.produced - offset), offset)
            offset += len(piece)
            yield piece

    def attach(self, fd: int) -> None:
        """Own the file that the run writes; it is closed with the last reader."""
        self._fd = fd
        weakref.finalize(self, os.close, fd)

    def wrote(self, produced: int, loop: asyncio.AbstractEventLoop) -> None:
        """Note how many bytes the file holds now; from the run's thread. Readers hear of it within a moment."""
        self._written = produced
        if not self._telling:
            self._telling = True
            loop.call_soon_threadsafe(loop.call_later, _POLL_S[0], self._tell)

    def _tell(self) -> None:
        self._telling = False  # before the look: what is written after it is told by another
        if not self.done and not self._whole:
            self.grow(self._written)

    # called on the event loop only
    def grow(self, produced: int, *, whole: bool = False) -> None:
        """Note how many bytes the file holds now, and whether these are all."""
        self.produced, self._whole = produced, whole
        self._notify()

    def finish(self, error: TargetError | None) -> None:
        """End the run, once; later calls change nothing."""
        if not self.done:
            self.done, self.error = True, error
            self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class DirectRun:
    """One run that feeds one client, at most a few chunks ahead of it."""

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type
        self.ended = False
        self._error: TargetError | None = None
        self._pieces: deque[bytes] = deque()
        self._room = threading.Semaphore(_AHEAD)
        self._cancelled = False
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    async def next(self) -> bytes | None:
        """The next piece, None at the end; raises what the run failed with.

        The first is longer than `HEAD_SIZE`, or is all.
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        self._room.release()
        return self._pieces.popleft()

    def cancel(self) -> None:
        """Stop the run at its next chunk: nobody reads it any more."""
        self._cancelled = True
        self._room.release()

    def finish(self, error: TargetError | None) -> None:
        """End the run, once. On the event loop only."""
        if not self.ended:
            self.ended, self._error = True, error
            self._changed.set()

    def feed(self, pieces: Iterator[bytes]) -> None:
        """Take everything from `pieces`; from the run's thread."""
        head: list[bytes] = []
        size = 0
        for piece in pieces:
            if self._cancelled:
                raise _AbandonedError
            head.append(piece)
            size += len(piece)
            if size > HEAD_SIZE:
                break
        if head:
            self._put(b"".join(head) if len(head) > 1 else head[0])
        for piece in pieces:
            self._put(piece)

    def _put(self, piece: bytes) -> None:
        self._room.acquire()
        if self._cancelled:
            raise _AbandonedError
        self._pieces.append(piece)
        self._loop.call_soon_threadsafe(self._changed.set)


class _AbandonedError(Exception):
    """The client of a direct run has left."""


@dataclass(slots=True)
class _Watch:
    """What a run in a thread still holds when its deadline passes."""

    slot: Slot
    plan: Plan
    late: bool = False


class Runner:
    """Starts runs and joins them."""

    def __init__(self, store: Store, results: Results, pipelines: Pipelines, gate: Gate, locks: ByteLocks) -> None:
        self._store = store
        self._results = results
        self._pipelines = pipelines
        self._gate = gate
        self._locks = locks
        self._runs: dict[str, CachedRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # lost threads keep their place here too, so there are many more than slots
        self._threads = ThreadPoolExecutor(max_workers=128, thread_name_prefix="etl")

    def known(self, job: Job) -> OpenResult | None:
        """The finished result if it is cached; raises what the transformer refused it with lately."""
        result = self._results.get(job.id)
        if result is not None:
            return self._open(result)
        self._raise_refusal(job)
        return None

    def _raise_refusal(self, job: Job) -> None:
        refusal = self._results.refusal(job.id)
        if refusal is not None:
            raise EtlSkipped(refusal.message) if refusal.kind == "skip" else EtlInputRejected(refusal.message)

    def known_size(self, job: Job) -> int | None:
        """The size of the result if it is cached, without opening it; raises what it was refused with lately."""
        result = self._results.get(job.id)
        if result is None:
            self._raise_refusal(job)
            return None
        return result.size

    def start(self, job: Job) -> CachedRun:
        """Join the run that makes this result, or start it."""
        run = self._runs.get(job.id)
        if run is None:
            run = CachedRun(self._pipelines.describe(job.plan, job.source)[0])
            self._runs[job.id] = run
            task = asyncio.get_running_loop().create_task(self._make(run, job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return run

    async def materialise(self, job: Job, wait_s: float) -> OpenResult:
        """The finished result, made if need be; raises SlowDown when `wait_s` passes first."""
        give_up = time.monotonic() + wait_s
        while True:
            found = self.known(job)
            if found is not None:
                return found
            run = self.start(job)
            await run.wait(None, give_up - time.monotonic())
            opened = run.opened()
            if opened is not None:
                return opened

    async def direct(self, job: Job) -> DirectRun:
        """Start a run for one client; raises SlowDown when no slot comes free within the wait budget."""
        run = DirectRun(self._pipelines.describe(job.plan, job.source)[0])
        reader = await self._reader(job)
        try:
            slot = await self._gate.enter(self._places(job.plan), time.monotonic() + self._gate.limits.wait_s)
        except BaseException:
            reader.close()
            raise
        task = asyncio.get_running_loop().create_task(
            self._in_thread(job.plan, slot, run.finish, lambda deadline: self._feed(run, job, reader, deadline))
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    async def close(self) -> None:
        """Give up what is under way."""
        for task in list(self._tasks):
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pipelines.workers.close()

    # --- one cached run -----------------------------------------------------------------------

    async def _make(self, run: CachedRun, job: Job) -> None:
        error: TargetError | None = None
        try:
            async with _Turn(self._locks, job.id, lambda: self._made_elsewhere(job)) as ours:
                if ours:
                    await self._run(run, job)
        except TargetError as failure:
            error = failure
        except asyncio.CancelledError:
            error = EtlFailed("the server is stopping")
            raise
        finally:
            self._runs.pop(job.id, None)
            run.finish(error)

    def _made_elsewhere(self, job: Job) -> bool:
        found = self.known(job)  # raises what it was refused with
        if found is None:
            return False
        found.close()
        return True

    async def _run(self, run: CachedRun, job: Job) -> None:
        reader = await self._reader(job)
        try:
            slot = await self._gate.enter(self._places(job.plan), time.monotonic() + self._timeout_s(job.plan))
        except BaseException:
            reader.close()
            raise
        loop = asyncio.get_running_loop()
        await self._in_thread(
            job.plan, slot, run.finish, lambda deadline: self._write(run, job, reader, deadline, loop)
        )

    def _write(
        self, run: CachedRun, job: Job, reader: ObjectReader, deadline: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        path = self._results.scratch(job.id)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        run.attach(fd)
        produced = 0
        try:
            with self._pieces(job, reader, deadline) as pieces:
                for piece in pieces:
                    _write_all(fd, piece)
                    produced += len(piece)
                    # a non-deterministic result shows no byte before it is whole: a rerun would make others
                    if job.identity.deterministic:
                        run.wrote(produced, loop)
            self._results.add(
                job.id, path, base=job.identity.base, generation=job.generation, content_type=run.content_type
            )
            loop.call_soon_threadsafe(partial(run.grow, produced, whole=True))
        except (EtlSkipped, EtlInputRejected) as refused:
            kind = "skip" if isinstance(refused, EtlSkipped) else "reject"
            self._results.refuse(job.id, Refusal(kind, refused.message), _REFUSED_FOR_S)
            raise
        finally:
            path.unlink(missing_ok=True)

    # --- any run ------------------------------------------------------------------------------

    def _feed(self, run: DirectRun, job: Job, reader: ObjectReader, deadline: float) -> None:
        with self._pieces(job, reader, deadline) as pieces:
            run.feed(pieces)

    @contextmanager
    def _pieces(self, job: Job, reader: ObjectReader, deadline: float) -> Iterator[Iterator[bytes]]:
        pieces = self._pipelines.produce(job.plan, reader, deadline, self._results.scratch_folder)
        try:
            yield pieces
        finally:
            pieces.close()  # stops its workers too
            reader.close()

    async def _in_thread(
        self, plan: Plan, slot: Slot, finish: Callable[[TargetError | None], None], work: Callable[[float], None]
    ) -> None:
        """Run `work(deadline)` in a thread; past it, fail without the thread and count its slot lost for now."""
        loop = asyncio.get_running_loop()
        timeout_s = self._timeout_s(plan)
        watch = _Watch(slot, plan)
        future = loop.run_in_executor(self._threads, _caught, work, time.monotonic() + timeout_s)
        future.add_done_callback(lambda _: self._returned(watch))
        done, _ = await asyncio.wait([future], timeout=timeout_s + _DEADLINE_GRACE_S)
        error: TargetError | None
        if done:
            error = future.result()
        else:
            error = EtlTimeout(f"ETL '{plan.name}' passed its deadline of {timeout_s:g} s")
            watch.late = True
            for stage in plan.stages:
                self._gate.lost(stage.etl, 1)
        finish(error)
        await self._judge(plan, error)

    def _returned(self, watch: _Watch) -> None:
        watch.slot.release()
        if watch.late:
            for stage in watch.plan.stages:
                self._gate.lost(stage.etl, -1)

    async def _judge(self, plan: Plan, error: TargetError | None) -> None:
        """Tell the circuits. A crash is its own stage's, named in the message; a deadline is the whole pipeline's."""
        etls = [stage.etl for stage in plan.stages]
        if not isinstance(error, EtlCrashed | EtlTimeout):
            self._gate.succeeded(etls)
            return
        for etl in etls:
            if isinstance(error, EtlTimeout) or f"'{etl}'" in error.message:
                await asyncio.to_thread(self._gate.broke, etl)

    async def _reader(self, job: Job) -> ObjectReader:
        reader = await self._store.open(job.source.bucket, job.source.key)
        if reader.info.etag != job.source.etag:
            reader.close()
            raise SourceChanged("the object was replaced while it was asked for")
        return reader

    def _open(self, result: Result) -> OpenResult | None:
        try:
            fd = os.open(result.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._results.forget(result.id)
            return None
        if os.fstat(fd).st_size != result.size:
            os.close(fd)
            self._results.forget(result.id)
            return None
        return OpenResult(fd, result.size, result.content_type)

    def _places(self, plan: Plan) -> list[tuple[str, int]]:
        return [(stage.etl, stage.concurrency or self._gate.limits.concurrency) for stage in plan.stages]

    def _timeout_s(self, plan: Plan) -> float:
        return sum(stage.timeout_s or self._gate.limits.timeout_s for stage in plan.stages)


class _Turn:
    """Waits for the right to make a result: True once it is ours, False when somebody else has made it meanwhile."""

    def __init__(self, locks: ByteLocks, result_id: str, made: Callable[[], bool]) -> None:
        self._locks = locks
        self._offset = int(result_id[:15], 16)
        self._made = made
        self._ours = False

    async def __aenter__(self) -> bool:
        pause = _POLL_S[0]
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
            pause = min(pause * 1.5, _POLL_S[1])

    async def __aexit__(self, *_: object) -> None:
        if self._ours:
            self._locks.unlock(self._offset)
            self._ours = False


def _caught(work: Callable[[float], None], deadline: float) -> TargetError | None:
    try:
        work(deadline)
    except TargetError as error:
        return error
    except _AbandonedError:
        return None
    except Exception as error:
        failure = EtlFailed(f"the run failed: {type(error).__name__}")
        failure.__cause__ = error
        return failure
    return None


def _write_all(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]
