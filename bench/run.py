"""A run from start to end: puts the objects, starts the worker processes, merges their results, and cleans up.

It prints nothing: progress goes to a callback. `Bench` is also the Python API that the comparison suite uses.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import uvloop

from transom.bench.load import Load
from transom.bench.mix import BY_HAND, Request, Workload, deletes, reads, stages, writes
from transom.bench.report import Report, WorkerResult, merge
from transom.bench.wire import Wire
from transom.bench.worker import TICK_S, Pace, error_code, worker_main

START_TIMEOUT_S = 60.0
SETUP_CONCURRENCY = 8

Progress = Callable[[float, int, int, int], None]
"""Called with seconds run, requests done, bytes moved, requests failed."""


class BenchError(Exception):
    """The run could not be made: the message says what was refused, or what broke."""


def ignore_progress(elapsed_s: float, done: int, moved: int, failed: int) -> None:
    """Show nothing."""


class Bench:
    """One workload against one endpoint, prepared once and measured as often as wanted."""

    def __init__(self, workload: Workload, pace: Pace, *, own_bucket: bool = True) -> None:
        workload.check()
        self.workload = workload
        self.pace = pace
        self.own_bucket = own_bucket

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """The bucket (if it is our own) and the objects that will be read exist inside; afterwards they are gone."""
        bucket = Request("bucket", "PUT", f"/{self.workload.bucket}", body=memoryview(b""))
        if self.own_bucket:
            self.send_all([bucket])
        try:
            if set(self.workload.mix) - {"put"}:
                self.send_all(writes(self.workload, self.workload.blobs(), kind="r"))
            yield
        except BaseException:
            with suppress(BenchError):  # what went wrong first is what counts
                self.clean()
            raise
        self.clean()

    def clean(self) -> None:
        """Remove the objects, and the bucket if it is our own."""
        kinds = [kind for kind, ops in (("r", {"get", "etl"}), ("w", {"put"})) if ops & set(self.workload.mix)]
        for kind in kinds:
            self.send_all(deletes(self.workload, kind), allowed=(404,))
        if self.own_bucket:
            self.send_all([Request("bucket", "DELETE", f"/{self.workload.bucket}")], allowed=(404,))

    def measure(self, progress: Progress = ignore_progress) -> Report:
        """Run the load. An interrupt from the keyboard ends it early, with what was measured so far."""
        results = _run_workers(self.workload, self.pace, progress)
        written = frozenset().union(*(result.written for result in results))
        return merge(results, unread=self.unread(written) if self.workload.verify and written else 0)

    def unread(self, written: Iterable[int]) -> int:
        """How many of the objects put do not read back byte for byte."""
        requests = reads(self.workload, self.workload.blobs(), kind="w")
        bad = 0

        def observe(_: Request, wire: Wire) -> None:
            nonlocal bad
            bad += not (wire.succeeded and wire.matches)

        self._send([requests[index] for index in written], observe)
        return bad

    def rehearse(self) -> int:
        """Send each request of the mix once, from this process, as many at a time as will be; return how many answers
        were wrong, where that can be known. Raises BenchError for one that fails."""
        knows = not (self.workload.etl and set(stages(self.workload.does or self.workload.etl)) - set(BY_HAND))
        blobs = self.workload.blobs()
        wrong = 0
        for op in self.workload.mix:
            if op == "put":
                self.send_all(writes(self.workload, blobs))
                wrong += self.unread(range(self.workload.objects))
            else:
                requests = reads(self.workload, blobs if knows or op == "get" else None, op=op)
                wrong += self.send_all(requests, at_once=self.pace.concurrency)
        return wrong

    def send_all(
        self, requests: Sequence[Request], *, allowed: tuple[int, ...] = (), at_once: int = SETUP_CONCURRENCY
    ) -> int:
        """Send each once; return how many answers were not the expected. Raises BenchError for the first that fails."""
        problems: list[str] = []
        wrong = 0

        def observe(request: Request, wire: Wire) -> None:
            nonlocal wrong
            wrong += not wire.matches
            if not wire.succeeded and (wire.failure or wire.status not in allowed):
                problems.append(f"{request.method} {request.path}: {error_code(wire)}")

        self._send(requests, observe, problems, at_once)
        if problems:
            raise BenchError(problems[0])
        return wrong

    def _send(
        self,
        requests: Sequence[Request],
        observe: Callable[[Request, Wire], None],
        problems: Sequence[str] = (),
        at_once: int = SETUP_CONCURRENCY,
    ) -> None:
        rest = iter(requests)

        async def run() -> None:
            load = Load(
                self.workload.endpoint,
                self.workload.credentials,
                lambda: None if problems else next(rest, None),
                observe,
                concurrency=max(1, min(at_once, len(requests))),
                timeout_s=self.pace.timeout_s,
                insecure=self.pace.insecure,
            )
            await load.run()
            load.close()

        uvloop.run(run())


def _run_workers(workload: Workload, pace: Pace, progress: Progress) -> list[WorkerResult]:
    """Start the processes, let them go together, and collect what they hand back."""
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, BaseProcess] = {}
    try:
        for number in range(pace.processes):
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(
                target=worker_main, args=(workload, pace, number, theirs), daemon=True
            )
            process.start()
            theirs.close()
            workers[ours] = process
        for pipe in workers:
            _expect(pipe, "ready")
        for pipe in workers:
            pipe.send("go")
        return _collect(list(workers), progress)
    finally:
        for pipe, process in workers.items():
            pipe.close()
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def _expect(pipe: Connection, kind: str) -> Any:
    if not pipe.poll(START_TIMEOUT_S):
        raise BenchError("a worker process did not start in time")
    try:
        got, value = pipe.recv()
    except EOFError:
        raise BenchError("a worker process died") from None
    if got == "failed":
        raise BenchError(str(value))
    assert got == kind, got
    return value


def _collect(pipes: list[Connection], progress: Progress) -> list[WorkerResult]:
    """Results of all workers, while their ticks add up to the progress shown."""
    results: list[WorkerResult] = []
    latest: dict[Connection, tuple[int, int, int]] = {}
    open_pipes = list(pipes)
    begun = time.monotonic()
    while open_pipes:
        try:
            for pipe in wait(open_pipes, timeout=TICK_S):
                assert isinstance(pipe, Connection)
                kind, value = pipe.recv()
                if kind == "failed":
                    raise BenchError(str(value))
                if kind == "tick":
                    latest[pipe] = value
                else:
                    results.append(value)
                    open_pipes.remove(pipe)
            done, moved, failed = (
                (sum(figures) for figures in zip(*latest.values(), strict=True)) if latest else (0, 0, 0)
            )
            progress(time.monotonic() - begun, done, moved, failed)
        except EOFError:
            raise BenchError("a worker process died") from None
        except KeyboardInterrupt:
            for pipe in open_pipes:
                pipe.send("stop")
    return results
