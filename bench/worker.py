"""One worker process of a run: builds its requests, sends them when told to, and reports over a pipe.

It knows nothing of the other workers; the parent (`transom.bench.run`) merges what they hand back.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from transom.bench.load import Load
from transom.bench.mix import Request, Workload, endless
from transom.bench.report import Tally, WorkerResult
from transom.bench.wire import Wire

TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard and how long: `concurrency` and `count` are of the whole run; at least one of the two ends is set.

    `cores` pins the workers to processor cores.
    """

    concurrency: int = 16
    processes: int = 1
    duration_s: float | None = 5.0
    count: int | None = None
    warmup_s: float = 0.0
    timeout_s: float = 60.0
    insecure: bool = False
    cores: tuple[int, ...] = ()

    def share(self, total: int, worker: int) -> int:
        """This worker's part of a number that all divide among them."""
        return total // self.processes + (worker < total % self.processes)


def error_code(wire: Wire) -> str:
    """The S3 code of a refused request, else its HTTP status, else what broke the connection."""
    if wire.failure:
        return wire.failure
    match = re.search(rb"<Code>([A-Za-z0-9.]{1,64})</Code>", wire.kept)
    return match[1].decode() if match else f"HTTP {wire.status}"


def etag_differs(request: Request, wire: Wire) -> bool:
    """A PUT's answer has an ETag that looks like an MD5 and is not the body's."""
    etag = wire.header(b"etag").strip(b'"').decode("latin-1")
    return bool(re.fullmatch(r"[0-9a-f]{32}", etag)) and etag != request.md5


class Worker:
    """Counts one process's answers. The warm-up is a run of its own, ended before the measured one begins: no request
    is under way at either end, so that none is counted whose work lies partly outside."""

    def __init__(self, workload: Workload, pace: Pace, number: int) -> None:
        self.workload = workload
        self.pace = pace
        self.requests = endless(workload, number, pace.processes)
        self.tallies: defaultdict[str, Tally] = defaultdict(Tally)
        self.written: set[int] = set()
        self.left: float = float("inf")
        self.quota: float = float("inf") if pace.count is None else pace.share(pace.count, number)
        self.concurrency = max(1, pace.share(pace.concurrency, number))
        self.started_s = 0.0
        self.finished_s = 0.0
        self.stopping = self.told_to_stop = False

    def next_request(self) -> Request | None:
        """The next request until time or count is up."""
        if self.stopping or self.left <= 0:
            return None
        self.left -= 1
        return next(self.requests)

    def observe(self, request: Request, wire: Wire) -> None:
        """Count one answer."""
        if request.op == "put" and wire.succeeded:
            self.written.add(request.index)
        self.finished_s = wire.finished_s
        tally = self.tallies[request.op]
        if not wire.succeeded:
            tally.errors[error_code(wire)] += 1
            return
        moved = wire.size if request.body is None else len(request.body)
        tally.succeeded(wire.started_s, wire.first_byte_s, wire.finished_s, moved)
        if not wire.matches or (request.md5 and etag_differs(request, wire)):
            tally.corrupt += 1

    async def run(self, pipe: Connection) -> WorkerResult:
        """Send load, ticking progress into the pipe, until done or told to stop."""
        load = Load(
            self.workload.endpoint,
            self.workload.credentials,
            self.next_request,
            self.observe,
            concurrency=self.concurrency,
            timeout_s=self.pace.timeout_s,
            insecure=self.pace.insecure,
        )
        if self.pace.warmup_s:
            await self._phase(load, pipe, self.pace.warmup_s, float("inf"))
            self.tallies.clear()
        await self._phase(load, pipe, self.pace.duration_s or float("inf"), self.quota)
        load.close()
        return WorkerResult(
            started_s=self.started_s,
            finished_s=max(self.finished_s, self.started_s),
            tallies={name: tally.packed() for name, tally in self.tallies.items()},
            written=frozenset(self.written),
        )

    async def _phase(self, load: Load, pipe: Connection, duration_s: float, quota: float) -> None:
        """Send load until time or quota is up and the last answer is in."""
        if self.told_to_stop:
            return
        self.left = quota
        self.stopping = False
        self.started_s = time.perf_counter()
        clock = asyncio.create_task(self._clock(pipe, self.started_s + duration_s))
        try:
            await load.run()
        finally:
            clock.cancel()

    async def _clock(self, pipe: Connection, stop_s: float) -> None:
        """Stop at the given time or when the parent says so, and tell the parent how it goes."""
        while not self.stopping:
            await asyncio.sleep(max(0.0, min(TICK_S, stop_s - time.perf_counter())))
            try:
                pipe.send(("tick", self.progress()))
                self.told_to_stop = pipe.poll()
            except OSError:  # the parent is gone
                self.told_to_stop = True
            self.stopping = self.told_to_stop or time.perf_counter() >= stop_s

    def progress(self) -> tuple[int, int, int]:
        """Requests done, bytes moved and requests failed so far."""
        done = moved = failed = 0
        for tally in self.tallies.values():
            tally.latency.fold()
            tally.first_byte.fold()
            done += tally.done
            moved += tally.moved
            failed += sum(tally.errors.values())
        return done, moved, failed


def worker_main(workload: Workload, pace: Pace, number: int, pipe: Connection) -> None:
    """A worker process's whole life: ready, told to go, run, hand back the result or the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    if pace.cores:
        os.sched_setaffinity(0, pace.cores)
    try:
        worker = Worker(workload, pace, number)
        pipe.send(("ready", None))
        pipe.recv()
        message: tuple[str, Any] = ("result", uvloop.run(worker.run(pipe)))
    except (EOFError, BrokenPipeError):  # the parent is gone
        return
    except Exception as error:  # the parent raises it
        message = ("failed", f"{type(error).__name__}: {error}")
    with suppress(OSError):
        pipe.send(message)
