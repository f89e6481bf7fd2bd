"""Runs stages on the workers that a keeper keeps: finds a revision's worker, waits for one on its way, calls it.

It starts and ends no worker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from transom.target.errors import EtlChanged, EtlDisconnected, EtlFailed, EtlUnavailable, TargetError
from transom.target.etl.keeper.places import Places, pull_offset, use_offset
from transom.target.etl.locks import ByteHolds
from transom.target.etl.plan import Plan, Stage
from transom.target.etl.runtimes.command_end import crash, with_hint
from transom.target.etl.runtimes.jobs import PULLS, Job, shared
from transom.target.etl.runtimes.workplace import limits_of
from transom.target.etl.spec import Spec, from_json
from transom.target.etl.transports.base import Address, Transport, Unreachable, WorkerLost
from transom.target.etl.transports.http import HttpTransport, Method
from transom.target.etl.transports.ws import WsTransport
from transom.target.etl.waiting import aside, sleep
from transom.target.etl.watch import Watch
from transom.target.etl.workers_status import WorkerState, WorkerStatus, read_target
from transom.target.store.base import ObjectInfo

_POLL_S = 0.02
_TOUCH_EVERY_S = 1.0
_WORDS_WITHIN_S = 0.25
_NOTICED_WITHIN_S = 5.0  # engines take a while to tell that a container has ended


@dataclass(frozen=True, slots=True)
class _Line:
    """How to speak with one revision's worker."""

    address: Address
    transport: Transport


class ServedRuntime:
    """One process's way to the workers of its target. Callable from any thread."""

    def __init__(self, places: Places, scratch: Path) -> None:
        """`scratch` is the folder for inputs of unknown length, where a worker must be told the length."""
        self._places = places
        self._scratch = scratch
        self._uses = ByteHolds(places.uses)
        self._pulls = ByteHolds(places.pulls)
        self._lines: dict[str, dict[int, _Line]] = {}
        self._touched: dict[str, float] = {}
        self._lock = threading.Lock()

    def hold(self, plan: Plan) -> Sequence[int]:
        """Keep the workers of a plan from being ended as no longer wanted, until `let_go` of what is returned."""
        held: list[int] = []
        try:
            for stage in plan.stages:
                if is_served(stage):
                    offset = use_offset(stage.etl, stage.revision)
                    self._uses.take(offset)
                    held.append(offset)
        except BaseException:
            self.let_go(held)
            raise
        return held

    def let_go(self, held: Sequence[int]) -> None:
        """Hold workers no longer."""
        for offset in held:
            self._uses.drop(offset)

    def run(self, job: Job, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Run one stage; see `Transport`. Raises EtlUnavailable too, where there is no worker."""
        self._touch(job.stage, watch)
        worker, address = self._worker(job, watch)
        transport = self._transport(job, worker, address)
        try:
            if job.spec.direct_file or job.pulled:
                yield from self._lending(job, transport, chunks, watch)
            else:
                yield from transport.run(job.call(), chunks, watch)
            self._touch(job.stage, watch)
        except WorkerLost as error:
            if isinstance(error.error, EtlUnavailable):  # it is well, and asks for patience
                raise
            # to try again is of no use before the keeper, too, has noticed that it is gone
            within_s = _NOTICED_WITHIN_S if isinstance(error, Unreachable) else _WORDS_WITHIN_S
            raise WorkerLost(self._end_of(job.stage, worker, watch, within_s) or error.error) from error
        except EtlFailed as error:
            if job.stage.runtime == "container":  # what limits there are is its own image's matter
                raise
            raise with_hint(error, limits_of(job.spec), network=job.spec.network) from error
        except EtlDisconnected as error:
            end = self._end_of(job.stage, worker, watch, _WORDS_WITHIN_S)
            if end is None:
                raise
            raise end from error

    def public_port(self, stage: Stage) -> int:
        """Where clients may be sent to the stage's worker; 0 where they can't be now."""
        with suppress(EtlUnavailable):
            worker = self._find(stage)
            if worker is not None and worker.state == "running":
                return worker.public_port
        return 0

    def lend(self, stage: Stage, source: ObjectInfo) -> ExitStack:
        """Keep the stage's worker up, and let it fetch an object, until what is returned is closed."""
        with ExitStack() as stack:
            stack.enter_context(self._uses.holding(use_offset(stage.etl, stage.revision)))
            stack.enter_context(self._pulls.holding(pull_offset(stage.etl, source.bucket, source.key, source.etag)))
            return stack.pop_all()

    def close(self) -> None:
        """Let go of connections and of everything held."""
        with self._lock:
            lines, self._lines = [line for each in self._lines.values() for line in each.values()], {}
        for line in lines:
            line.transport.close()
        self._uses.close()
        self._pulls.close()

    # --- finding the worker -------------------------------------------------------------------

    def _worker(self, job: Job, watch: Watch) -> tuple[WorkerStatus, Address]:
        worker = self._find(job.stage)
        if worker is not None and worker.address is not None:
            return worker, worker.address
        # the time it takes to start is not the transform's: the clock stands still
        watch.pause()
        try:
            return self._await(job, watch)
        finally:
            watch.resume()

    def _await(self, job: Job, watch: Watch) -> tuple[WorkerStatus, Address]:
        etl = job.stage.etl
        give_up = time.monotonic() + job.spec.init_timeout_s
        while time.monotonic() < give_up:
            worker = self._find(job.stage)
            if worker is not None and worker.address is not None:
                return worker, worker.address
            if worker is not None and worker.state == "failed":
                raise EtlUnavailable(f"ETL '{etl}' is unavailable: {worker.message}", retry_after_s=15, etl=etl)
            watch.check()
            sleep(_POLL_S)
        raise EtlUnavailable(f"ETL '{etl}' is unavailable: its worker is not up", retry_after_s=15, etl=etl)

    def _end_of(self, stage: Stage, before: WorkerStatus, watch: Watch, within_s: float) -> TargetError | None:
        """How a worker that was lost ended, as its keeper has it; None if that sees no end within the time."""
        began = time.monotonic()
        watch.pause()  # it is not the transform's time
        try:
            while (waited_s := time.monotonic() - began) < _NOTICED_WITHIN_S:
                if waited_s > within_s and not _is_ended_container(before):
                    break
                worker = self._find(stage)
                if worker is None or _life_of(worker) != _life_of(before):
                    return crash(stage.etl, worker.message, worker.bound) if worker and worker.message else None
                watch.check()
                sleep(_POLL_S)
        except EtlUnavailable:  # it was to end anyway
            pass
        finally:
            watch.resume()
        return None

    def _find(self, stage: Stage) -> WorkerStatus | None:
        """The newest worker of the stage's revision that can be called, else the newest; None while none is known.

        Raises EtlChanged where there is none any more.
        """
        status = read_target(self._places.folder, self._places.target, stage.etl)
        if status is None:
            return None
        found: WorkerStatus | None = None
        for worker in status.revisions:
            # one that is started anew goes on serving meanwhile
            if worker.revision == stage.revision and (found is None or worker.address or not found.address):
                found = worker
        if found is None:
            raise EtlChanged(f"ETL '{stage.etl}' was changed just now. Ask again.", retry_after_s=1, etl=stage.etl)
        return found

    # --- speaking with it ---------------------------------------------------------------------

    def _lending(
        self, job: Job, transport: Transport, chunks: Iterator[bytes], watch: Watch
    ) -> Generator[bytes, None, None]:
        """Call a worker that reads the object's own file, or fetches the object, meanwhile."""
        with ExitStack() as stack:
            path = stack.enter_context(self._shared(job)) if job.spec.direct_file else ""
            if job.reader is not None and job.pulled and not path:
                info = job.reader.info
                offset = pull_offset(job.stage.etl, info.bucket, info.key, info.etag)
                stack.enter_context(self._pulls.holding(offset))
            yield from transport.run(job.call(path), chunks, watch)

    def _transport(self, job: Job, worker: WorkerStatus, address: Address) -> Transport:
        etl, revision = job.stage.etl, job.stage.revision
        line = self._lines.get(etl, {}).get(revision)
        if line is not None and line.address == address:
            return line.transport
        made = _Line(address, self._speak(job.spec, worker, address))
        with self._lock:
            lines = self._lines.setdefault(etl, {})
            # those before go with their idle connections; whoever is on one of them stays on it
            old = [lines.pop(each) for each in list(lines) if each <= revision]
            lines[revision] = made
        for each in old:
            each.transport.close()
        return made.transport

    def _speak(self, spec: Spec, worker: WorkerStatus, address: Address) -> Transport:
        if spec.transport == "ws":
            return WsTransport(address)
        pulls: Method = "pull" if spec.transport in PULLS else "push"
        return HttpTransport(address, pulls, scratch=self._scratch, tells_length=not worker.chunked)

    @contextmanager
    def _shared(self, job: Job) -> Iterator[str]:
        if job.reader is None:
            yield ""
            return
        folder = self._places.files(job.stage.etl, job.stage.revision)
        with shared(job.reader, folder, self._places.folder) as path:
            yield path

    def _touch(self, stage: Stage, watch: Watch) -> None:
        """Tell the keeper, once a second, that there are runs; those that are over soon would else go unseen."""
        now = time.monotonic()
        if now - self._touched.get(stage.etl, float("-inf")) > _TOUCH_EVERY_S:
            self._touched[stage.etl] = now
            path = self._places.wanted(stage.etl, stage.revision)
            with suppress(OSError):
                aside(path.touch, watch.check)


def _life_of(worker: WorkerStatus) -> tuple[int, int, WorkerState]:
    return worker.launch_ns, worker.restarts, worker.state


def _is_ended_container(worker: WorkerStatus) -> bool:
    """Whether a container's first process is gone, which its engine may take a moment to tell the keeper."""
    return bool(worker.container and worker.pid) and not Path(f"/proc/{worker.pid}").exists()


def is_served(stage: Stage) -> bool:
    """Whether a keeper keeps a worker for the stage."""
    if stage.runtime == "command":
        return from_json(stage.spec).transport != "io"
    return stage.runtime in ("code", "container")
