"""Where offline jobs are started: a process that sees which are asked for, and forks one runner for each.

It stays single-threaded and keeps no database open: both would be broken in what it forks. It knows nothing of what a
runner does.
"""

from __future__ import annotations

import gc
import logging
import mmap
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from transom.cluster.records import CatalogError
from transom.cluster.stamp import Stamp
from transom.target.jobs.catalog import STAMP, JobCatalog
from transom.target.jobs.records import Job
from transom.target.jobs.wait import Wait
from transom.target.lifeline import end_with

_NICE = 10
_POLL_S = 0.02
_LOOK_S = 5.0  # between looks at the catalog when no stamp asks for one
_FORGET_EACH_S = 60.0
_REASON_BYTES = 1000
_NO_CATALOG = os.EX_TEMPFAIL  # how a runner ends that can't begin or end its job in the catalog
_OBEY_S = 5.0  # for a runner that was told to abort
_DEATHS = 3  # of a job's runners, until it is given up
_log = logging.getLogger("transom.jobs")


@dataclass(slots=True)
class _Runner:
    """A job's process; `end_by` is when it is ended by force. It writes into `reason` why its job has to wait."""

    pid: int
    job: Job
    end_by: float
    reason: mmap.mmap
    aborted: bool = False


@dataclass(slots=True)
class Desk:
    """Starts the jobs of a data folder, at most `concurrency` at a time. `run` is what a runner does.

    `preload` imports what runners would import, once what was waiting at the start has its runners. Jobs that ended
    more than `keep_s` ago are forgotten, unless it is 0. What can't be had now, the catalog or a job's folder, is tried
    again after `again_s`, then less and less often, and logged when that begins, changes or ends. A runner whose job's
    time is over ends it itself, and has `late_s` beyond that before it is ended by force: its clock starts once a
    killed one before it is gone, and its engine there.
    """

    folder: Path
    concurrency: int
    run: Callable[[Job], None]
    preload: Callable[[], None] = lambda: None
    keep_s: float = 0.0
    late_s: float = 60.0
    again_s: float = 5.0
    _runners: dict[str, _Runner] = field(default_factory=dict)
    _ended: dict[str, str] = field(default_factory=dict)  # how runners did that the catalog wasn't told of yet
    _deaths: Counter[str] = field(default_factory=Counter)
    _late: set[str] = field(default_factory=set)  # jobs whose time was long over
    _waits: dict[str, Wait] = field(default_factory=dict)  # of jobs that can't be begun, or ended
    _rest: Wait = field(default_factory=Wait)  # of the catalog
    _seen: bytes = b""
    _look_at: float = 0.0
    _forget_at: float = 0.0

    def serve(self, stopped: Callable[[], bool]) -> None:
        """Start what is asked for until told to stop; jobs under way are begun again by the next desk."""
        _freeze()
        with closing(Stamp(self.folder / STAMP)) as stamp:
            self._sweep()
            try:
                self._step(stamp)
                self.preload()
                _freeze()
                while not stopped():
                    self._step(stamp)
                    time.sleep(_POLL_S)
            finally:
                self._kill_all()

    def _step(self, stamp: Stamp) -> None:
        now = time.monotonic()
        self._reap()
        seen = stamp.look()
        asked = bool(self._ended) or seen != self._seen or now >= self._look_at
        if not asked or not self._rest.is_over:
            return
        self._look_at = now + _LOOK_S
        try:
            waiting = self._look()
        except CatalogError as error:
            if self._rest.begin(str(error), self.again_s):
                _log.error("the catalog of jobs can't be used: %s", error)
            return
        if self._rest.tries:
            self._rest = Wait()
            _log.warning("the catalog of jobs can be used again")
        self._seen = seen
        due = [job for job in waiting if self._is_due(job.id)]
        for job in due[: max(0, self.concurrency - len(self._runners))]:
            self._start(job)

    def _is_due(self, job_id: str) -> bool:
        """Whether a job may be tried now; if it is to be tried later, it is looked at by then."""
        wait = self._waits.get(job_id)
        if wait is None or wait.is_over:
            return True
        self._look_at = min(self._look_at, wait.until)
        return False

    def _look(self) -> list[Job]:
        """Judge those whose runner died, see to aborts; return the jobs that wait for a runner."""
        with closing(JobCatalog.open(self.folder)) as catalog:
            for job_id, how in list(self._ended.items()):
                self._bury(catalog, job_id, how)
                del self._ended[job_id]
            self._forget(catalog)
            for job_id in self._waits:  # of those that wait no runner sees to an abort
                if job_id not in self._runners and catalog.abort_ordered(job_id):
                    catalog.finish(job_id, "aborted")
            jobs = catalog.resumable()
            for job_id in self._waits.keys() - {job.id for job in jobs} - self._runners.keys():
                del self._waits[job_id]
            for runner in self._runners.values():
                if not runner.aborted and catalog.abort_ordered(runner.job.id):
                    runner.aborted, runner.end_by = True, time.monotonic() + _OBEY_S
        return [job for job in jobs if job.id not in self._runners]

    def _forget(self, catalog: JobCatalog) -> None:
        now = time.monotonic()
        if self.keep_s and now >= self._forget_at:
            self._forget_at = now + _FORGET_EACH_S
            catalog.forget(time.time() - self.keep_s)

    # --- runners ----------------------------------------------------------------------------------

    def _start(self, job: Job) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        reason = mmap.mmap(-1, _REASON_BYTES)  # shared with the runner
        try:
            pid = os.fork()
        except OSError as error:
            _log.error("no process for job %s: %s", job.id, error.strerror)
            return
        if pid == 0:
            _be_runner(self.run, job, parent, reason)
        timeout_s = job.order.timeout_s
        end_by = float("inf") if timeout_s is None else time.monotonic() + timeout_s + self.late_s
        self._runners[job.id] = _Runner(pid, job, end_by, reason)

    def _reap(self) -> None:
        """Take leave of runners that ended, and note how those did that have no job's end to show, "" for others."""
        for job_id, runner in list(self._runners.items()):
            if time.monotonic() > runner.end_by:
                self._late.add(job_id)
                os.kill(runner.pid, signal.SIGKILL)
            pid, status = os.waitpid(runner.pid, os.WNOHANG)
            if pid:
                del self._runners[job_id]
                code = os.waitstatus_to_exitcode(status)
                if code == _NO_CATALOG:
                    self._wait(runner)
                    code = 0
                elif self._waits.pop(job_id, None) is not None:
                    _log.warning("job %s no longer has to wait", job_id)
                self._deaths[job_id] += code != 0
                self._ended[job_id] = "" if code == 0 else f"signal {-code}" if code < 0 else f"exit code {code}"

    def _wait(self, runner: _Runner) -> None:
        reason = runner.reason[:].rstrip(b"\0").decode(errors="replace")
        if self._waits.setdefault(runner.job.id, Wait()).begin(reason, self.again_s):
            _log.error("job %s has to wait: %s", runner.job.id, reason)

    def _bury(self, catalog: JobCatalog, job_id: str, how: str) -> None:
        """End, or leave to be begun again, a job whose runner died before its end."""
        if how:
            self._judge(catalog, job_id, how)
        if job_id not in {job.id for job in catalog.resumable()}:
            self._late.discard(job_id)
            del self._deaths[job_id]

    def _judge(self, catalog: JobCatalog, job_id: str, how: str) -> None:
        shutil.rmtree(catalog.folder_of(job_id) / "scratch", ignore_errors=True)
        if catalog.abort_ordered(job_id):
            catalog.finish(job_id, "aborted")
            return
        _log.error("the process of job %s ended: %s", job_id, how)
        if job_id in self._late:
            catalog.finish(job_id, "failed", None, "the job took longer than it was to, and didn't stop by itself")
        elif self._deaths[job_id] >= _DEATHS:
            catalog.finish(job_id, "failed", None, f"the job's process died {_DEATHS} times, at last by {how}")

    def _kill_all(self) -> None:
        for runner in self._runners.values():
            os.kill(runner.pid, signal.SIGKILL)
        for runner in self._runners.values():
            os.waitpid(runner.pid, 0)
        self._runners.clear()

    def _sweep(self) -> None:
        """Remove what killed runners and removed jobs left."""
        with suppress(CatalogError, OSError), closing(JobCatalog.open(self.folder)) as catalog:
            catalog.sweep()


def _freeze() -> None:
    """Leave alone what there is: runners share it, and a collection would copy it."""
    gc.collect()
    gc.freeze()


def _be_runner(run: Callable[[Job], None], job: Job, parent: int, reason: mmap.mmap) -> NoReturn:
    """Run a job in this process, just forked, and end it."""
    code = 1
    try:
        if not end_with(parent):
            os._exit(1)
        os.setsid()
        os.nice(_NICE)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_DFL)
        run(job)
        code = 0
    except CatalogError as error:
        told = str(error).encode()[:_REASON_BYTES]
        reason[: len(told)] = told
        code = _NO_CATALOG
    except BaseException:  # whatever it is, it must not get back into the desk's code
        _log.exception("the process of job %s ends", job.id)
    finally:
        os._exit(code)
