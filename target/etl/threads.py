"""Runs the work of runs under its deadline, in threads or beside the event loop; what comes of it is told once, there.

It knows neither stores nor results. All but the work itself happens on the event loop, so it needs no locks.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from transom.target.errors import EtlFailed, TargetError
from transom.target.etl.limits import Gate, Slot
from transom.target.etl.waiting import LoopWork
from transom.target.etl.watch import AbandonedError, Watch

_DEADLINE_GRACE_S = 0.5  # a worker past its deadline is killed by the run's own thread first
_KEPT = 64  # idle greenlets
_THREADS = 128  # lost threads keep their place here, so there are many more than slots
_log = logging.getLogger("transom.etl")

Told = Callable[[TargetError | None], None]
_Queue = SimpleQueue["_Run | None"]


class RunThreads:
    """Threads that run one piece of work after another, more of them as they are needed.

    Nothing waits for a thread that doesn't come back, the end of the process neither.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._queue: _Queue = SimpleQueue()
        self._threads = 0
        self._busy = 0
        self._closed = False
        self._on_loop: dict[_Run, LoopWork] = {}
        self._idle: list[LoopWork] = []

    def start(
        self,
        work: Callable[[], None],
        watch: Watch,
        slot: Slot,
        etls: Sequence[str],
        told: Told,
        *,
        on_loop: bool = False,
    ) -> None:
        """Run `work`; call `told` with its error or None, and give `slot` back, once it has ended.

        Past the deadline `told` is called without it, and the slot counts as lost for now: for the ETL at work, else
        for all of `etls`. Work that does little but wait, by what `waiting` has for that, needs no thread: `on_loop`.
        It never waits for long without a look at its deadline, and so is never late.
        """
        if self._closed:
            raise RuntimeError("the server stops")
        run = _Run(self, work, watch, slot, etls, told, asyncio.get_running_loop())
        if on_loop:
            here = self._on_loop[run] = self._idle.pop() if self._idle else LoopWork(run.loop)
            here.begin(run.do_here)
            return
        if self._busy >= self._threads and self._threads < _THREADS:
            thread = threading.Thread(target=_serve, args=(self._queue,), name=f"etl-{self._threads + 1}", daemon=True)
            try:
                thread.start()
                self._threads += 1
            except RuntimeError:  # the machine has no more; those that are there will do
                if not self._threads:
                    slot.release()
                    raise
        self._busy += 1
        run.look_later()
        self._queue.put(run)

    def close(self) -> None:
        """Begin nothing more, and tell nobody of what has not begun; the threads end with what they are at.

        What runs on the event loop ends now.
        """
        self._closed = True
        while self._idle:
            self._idle.pop().end()
        with suppress(Empty):
            while (run := self._queue.get_nowait()) is not None:
                run.drop()
        for _ in range(self._threads):
            self._queue.put(None)
        for run, here in list(self._on_loop.items()):
            run.watch.abandon()  # for threads that it waits for
            here.stop(EtlFailed(f"the run of ETL '{run.watch.pipeline}' was given up: the server stops"))

    def lost(self, etls: Sequence[str], by: int) -> None:
        """Count slots lost to threads that are late, or got back (-1)."""
        for etl in etls:
            self._gate.lost(etl, by)

    def returned(self, run: _Run) -> None:
        """Note that a run's work is over."""
        here = self._on_loop.pop(run, None)
        if here is None:
            self._busy -= 1
        elif len(self._idle) < _KEPT and not self._closed:
            self._idle.append(here)
        else:
            here.end()


@dataclass(slots=True, eq=False)
class _Run:
    """One piece of work."""

    threads: RunThreads
    work: Callable[[], None]
    watch: Watch
    slot: Slot
    etls: Sequence[str]
    told: Told
    loop: asyncio.AbstractEventLoop
    _timer: asyncio.TimerHandle | None = None
    _late: Sequence[str] = ()

    def do(self) -> None:
        """Do the work; in a thread."""
        error = _caught(self.work, self.watch)
        with suppress(RuntimeError):  # the loop is closed: nobody is to be told
            self.loop.call_soon_threadsafe(self._returned, error)

    def do_here(self) -> None:
        """Do the work; on the event loop."""
        error = _caught(self.work, self.watch)
        with suppress(RuntimeError):  # the loop is closed: nobody is to be told
            self.loop.call_soon(self._returned, error)

    def look_later(self) -> None:
        """Look again once the deadline, as it is now, has passed."""
        self._timer = self.loop.call_later(max(self.watch.left_s(), 0) + _DEADLINE_GRACE_S, self._look)

    def drop(self) -> None:
        """Give back what is held for it: it won't begin."""
        self.slot.release()
        if self._timer is not None:
            self._timer.cancel()

    def _returned(self, error: TargetError | None) -> None:
        self.threads.returned(self)
        self.drop()
        if self._late:
            self.threads.lost(self._late, -1)
        else:
            self.told(error)

    def _look(self) -> None:
        if self.watch.left_s() > -_DEADLINE_GRACE_S:  # it was paused meanwhile
            self.look_later()
            return
        if not self.watch.settle():  # it is just handing over what it made
            return
        error = self.watch.timeout()
        self._late = [error.etl] if error.etl else self.etls
        self.threads.lost(self._late, 1)
        self.told(error)


def _serve(queue: _Queue) -> None:
    """A thread's whole life."""
    while (run := queue.get()) is not None:
        run.do()
        del run  # it holds a run's output


def _caught(work: Callable[[], None], watch: Watch) -> TargetError | None:
    """Run `work` and return what it failed with: nothing may pass for a run that ended well."""
    try:
        work()
    except TargetError as error:
        return error
    except AbandonedError:
        return EtlFailed(f"nobody read what ETL '{watch.pipeline}' made")
    except BaseException as error:  # a native extension's panic is no Exception
        return unexpected(watch.pipeline, error)
    return None


def unexpected(pipeline: str, error: BaseException) -> EtlFailed:
    """What a run failed with that nobody thought of; the log has the cause."""
    _log.error("the run of ETL %s failed", pipeline, exc_info=error)
    return EtlFailed(f"the run of ETL '{pipeline}' failed: {type(error).__name__}")
