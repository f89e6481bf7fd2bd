"""The pool of worker processes that run GIL-bound transformers, spoken with in frames.

A worker asks for each piece of an input that is not small, so neither side can fill the other's buffer: no deadlock,
and back-pressure both ways.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from transom.plugins.contract import Context, Reject, Skip
from transom.target.errors import EtlCrashed, EtlFailed, EtlOutOfMemory
from transom.target.etl.transports.frames import FramedProgram, RefusedError
from transom.target.etl.watch import Watch

_START_TIMEOUT_S = 30.0
# What runs may leave behind in a worker before another takes its place: more than libraries keep for themselves, and
# little enough that the workers of a machine, one a core, don't fill it with what a transformer never lets go of.
MAX_GROWTH = 1024**3
J = TypeVar("J")
J_contra = TypeVar("J_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is given: a transformer, its arguments as JSON, what it is told, and how much memory it may use."""

    plugin: str
    given: str
    context: Context
    max_memory: int

    def told(self) -> dict[str, object]:
        """What the worker is sent, as JSON has it."""
        context = self.context
        return {
            "plugin": self.plugin,
            "given": self.given,
            "max_memory": self.max_memory,
            "context": {
                "bucket": context.bucket,
                "key": context.key,
                "etl": context.etl,
                "content_type": context.content_type,
                "size": context.size,
                "metadata": dict(context.metadata),
                "deadline": context.deadline if context.deadline != float("inf") else None,
            },
        }


class Worker:
    """One worker process. It ends when its socket closes or its parent dies."""

    def __init__(self, etl: str, scratch_folder: Path, max_growth: int = MAX_GROWTH) -> None:
        """Start one for `etl`, which is named where it does not start; any ETL may use it later.

        Once it holds `max_growth` bytes more after a run than it began with, it is not to be used again.
        """
        self._outgrown = False
        self._scratch = Path(tempfile.mkdtemp(prefix=f"worker.{os.getpid()}.", dir=scratch_folder))
        ours, theirs = socket.socketpair()
        ends, self._lifeline = os.pipe()
        with theirs:
            inherited = (theirs.fileno(), ends)
            arguments = [str(theirs.fileno()), str(ends), str(self._scratch), str(max_growth)]
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "transom.target.etl.worker", *arguments],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
            )
        os.close(ends)
        self._program = FramedProgram(ours)
        try:
            self._program.greet(_START_TIMEOUT_S)  # once its plugins are loaded
        except (EOFError, OSError) as error:
            self.kill()
            raise EtlCrashed(f"ETL '{etl}' crashed: its worker process did not start", etl=etl) from error

    def run(self, task: Task, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run a transformer; raises EtlCrashed, EtlOutOfMemory, EtlFailed, Skip, Reject, and as `watch`."""
        etl = task.context.etl
        try:
            self._outgrown = bool((yield from self._program.exchange(task.told(), chunks, watch)))
        except (EOFError, ConnectionError) as error:
            code = self._exit_code()
            raise EtlCrashed(f"ETL '{etl}' crashed: its worker process ended with {code}", etl=etl) from error
        except RefusedError as error:
            told = json.loads(error.payload)
            self._outgrown = told["outgrown"]
            if told["kind"] == "timeout" and task.context.remaining_s() <= 0:
                # the worker keeps to what it was told, whatever the clock stood still since
                raise watch.timeout() from None
            raise _failure(etl, told) from None

    @property
    def idle(self) -> bool:
        """Whether it waits for a task: only then can it be used again."""
        return self._program.idle and not self._outgrown

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Stop the process now, reap it and remove what it left."""
        self._process.kill()
        self._process.wait()
        self._program.close()
        with contextlib.suppress(OSError):
            os.close(self._lifeline)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _exit_code(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "a broken socket"
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class Pooled(Protocol[J_contra]):
    """A worker that a pool keeps; `J_contra` is what it runs."""

    @property
    def idle(self) -> bool:
        """Whether it waits for an object: only then can it be used again."""

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""

    def run(self, task: J_contra, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run one object."""

    def kill(self) -> None:
        """Stop the process now, reap it and remove what it left."""


class Pool(Generic[J]):
    """Keeps idle workers warm; `start` makes one for a run that finds none. Callable from any thread."""

    def __init__(self, start: Callable[[J, Watch], Pooled[J]]) -> None:
        self._start = start
        self._idle: list[tuple[Pooled[J], float]] = []  # each with the time since when
        self._closed = False
        self._lock = threading.Lock()

    def run(self, task: J, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run one object in a worker. Closing the iterator early kills that worker."""
        worker = self._take(task, watch)
        try:
            yield from worker.run(task, chunks, watch)
        finally:
            if not self._keep(worker):
                worker.kill()

    def close(self) -> None:
        """Stop every idle worker, and those at work once they have done it."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker, _ in idle:
            worker.kill()

    def trim(self, unused_s: float) -> None:
        """Stop every worker that was idle for longer than `unused_s`."""
        since = time.monotonic() - unused_s
        with self._lock:
            unused = [worker for worker, idle_since in self._idle if idle_since < since]
            self._idle = [each for each in self._idle if each[1] >= since]
        for worker in unused:
            worker.kill()

    def _take(self, task: J, watch: Watch) -> Pooled[J]:
        while True:
            with self._lock:
                worker = self._idle.pop()[0] if self._idle else None
            if worker is None:
                watch.pause()  # the time it takes to start is not the transform's
                try:
                    return self._start(task, watch)
                finally:
                    watch.resume()
            if worker.alive:
                return worker
            worker.kill()  # it died while idle: no run's fault

    def _keep(self, worker: Pooled[J]) -> bool:
        with self._lock:
            if self._closed or not worker.idle:
                return False
            self._idle.append((worker, time.monotonic()))
            return True


class WorkerPool(Pool[Task]):
    """The pool of workers that run installed transformers."""

    def __init__(self, scratch_folder: Path, max_growth: int = MAX_GROWTH) -> None:
        """Their files go below the folder. One that has grown by so many bytes is let go of, after a run."""
        super().__init__(lambda task, _: Worker(task.context.etl, scratch_folder, max_growth))


def _failure(etl: str, error: dict[str, Any]) -> Exception:
    if error["kind"] == "skip":
        return Skip(error["message"])
    if error["kind"] == "reject":
        return Reject(error["message"])
    kind = EtlOutOfMemory if error["kind"] == "memory" else EtlFailed
    return kind(f"ETL '{etl}' failed: {error['message']}", etl=etl)
