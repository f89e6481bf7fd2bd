"""Runs one job from its claim to its end, in a process of its own. Whatever goes wrong is the end, with a message.

It knows nothing of what a job does, nor of who starts it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transom.cluster.catalog import Catalog
from transom.cluster.records import CatalogError
from transom.cluster.stamp import Stamp
from transom.target.errors import StoreFull, TargetError
from transom.target.etl.error_log import ErrorLog
from transom.target.jobs.alarm import Alarm, JobAborted, JobTimedOut
from transom.target.jobs.catalog import FOLDERS, STAMP, JobCatalog
from transom.target.jobs.engines.base import Engine, Opener, WorkFailed
from transom.target.jobs.order import EngineName
from transom.target.jobs.phases import JobStopped, Run
from transom.target.jobs.records import Counts, Job, JobState
from transom.target.jobs.site import Site
from transom.target.jobs.tally import Tally
from transom.target.jobs.worklist import Collision, Worklist

SCRATCH = "scratch"  # in a job's folder
_ERRORS = "errors.sqlite"  # in a data folder
_ROOM, _ROOM_BYTES = "room", 256 * 1024
_OTHERS_END_S = 30.0  # for what is left of a killed run of this job
_PAUSE_S = 0.05
_MAKE_ROOM = "Make room, and start the same job anew: it does only the rest."
_SAID = (JobTimedOut, JobStopped, Collision, CatalogError)  # their texts are meant for whoever asked for the job
_log = logging.getLogger("transom.jobs")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What jobs are run with: the data folder, the ETLs' catalog, how a site is opened given its scratch folder.

    `open_site` can be pickled; `engines` make an engine of what opens the sites of a job's workers.
    """

    folder: Path
    catalog: Path
    open_site: Callable[[Path], Site]
    engines: Mapping[EngineName, Callable[[Opener, Job], Engine]]


@dataclass(frozen=True, slots=True)
class _Ending:
    """What a job comes to; without `counts` those last known stay."""

    state: JobState
    message: str = ""
    counts: Counts | None = None


def run_job(settings: RunSettings, job: Job) -> None:
    """Run a job that waits, or one that was begun, to its end; blocking.

    To be called in a process with no threads and no databases. Raises what keeps the end from being written down.
    """
    folder = settings.folder / FOLDERS / job.id
    with _alone_in(folder) as scratch, ExitStack() as closed:
        opener = partial(settings.open_site, scratch)
        engine: Engine | None = None
        failure: Exception | None = None
        try:  # before any database is opened: it forks
            engine = closed.enter_context(closing(settings.engines[job.order.engine](opener, job)))
        except Exception as error:
            failure = error
        catalog = closed.enter_context(closing(JobCatalog.open(settings.folder)))
        claimed = catalog.claim(job.id)
        if claimed is None:
            return
        ending = _explain(failure) if engine is None else _conduct(settings, claimed, catalog, engine, opener, closed)
        if ending.state != "done" and engine is not None:
            engine.close()  # whoever sees that the job ended sees none of its workers
        (scratch / _ROOM).unlink(missing_ok=True)
        catalog.finish(job.id, ending.state, ending.counts, ending.message)


@contextmanager
def _alone_in(folder: Path) -> Iterator[Path]:
    """Hold a job's folder, once what is left of a killed run has ended; yield an empty folder for temporary files.

    Whatever is forked meanwhile holds it too. Raises CatalogError where that can't be had now: on a full disk, say.
    """
    scratch = folder / SCRATCH
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held.callback(os.close, fd)
            _lock(fd)
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
        except OSError as error:
            raise CatalogError(f"its folder can't be used: {error}") from error
        _keep_room(scratch)
        yield scratch
        shutil.rmtree(scratch, ignore_errors=True)


def _keep_room(scratch: Path) -> None:
    """Have the catalog find room for the job's end, also where the job filled the disk."""
    with suppress(OSError), (scratch / _ROOM).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _ROOM_BYTES)


def _lock(fd: int) -> None:
    give_up = time.monotonic() + _OTHERS_END_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def _conduct(
    settings: RunSettings, job: Job, catalog: JobCatalog, engine: Engine, opener: Opener, closed: ExitStack
) -> _Ending:
    """Run a claimed job with all it needs opened; what it comes to. `closed` closes that: nobody waits for it."""
    counts: Counts | None = None
    try:
        worklist = closed.enter_context(Worklist.open(catalog.folder_of(job.id)))
        errors = closed.enter_context(closing(ErrorLog(settings.folder / _ERRORS)))
        stamp = closed.enter_context(closing(Stamp(settings.folder / STAMP)))
        run = Run(
            job=job,
            engine=engine,
            folder=catalog.folder_of(job.id),
            worklist=worklist,
            tally=Tally(job, worklist, catalog, errors),
            alarm=Alarm(catalog, stamp, job.id, job.order.timeout_s),
            etls=closed.enter_context(closing(Catalog.open(settings.catalog))),
        )
        try:
            message = run.over(closed.enter_context(closing(opener())))
        finally:
            counts = worklist.counts()
    except Exception as error:
        ending = _explain(error)
        return _Ending(ending.state, ending.message, counts)
    return _Ending("done", message, counts)


def _explain(failure: BaseException | None) -> _Ending:
    """What a job comes to that ended so."""
    if isinstance(failure, JobAborted):
        return _Ending("aborted")
    if _is_full(failure):
        return _Ending("failed", f"The disk is full. {_MAKE_ROOM}")
    if isinstance(failure, StoreFull):
        return _Ending("failed", f"{failure.message} {_MAKE_ROOM}")
    if isinstance(failure, TargetError):
        return _Ending("failed", failure.message or type(failure).__name__)
    if isinstance(failure, _SAID):
        return _Ending("failed", str(failure))
    _log.error("a job failed", exc_info=failure)
    return _Ending("failed", _unforeseen(failure))


def _unforeseen(failure: BaseException | None) -> str:
    if isinstance(failure, sqlite3.Error):
        return f"the job's own files can't be used: {failure}"
    if isinstance(failure, WorkFailed):  # a traceback of a worker: its last line says what it was
        return str(failure).rpartition("\n")[2]
    return f"{type(failure).__name__}: {failure}"


def _is_full(failure: BaseException | None) -> bool:
    """Whether there was no room for the job's own files."""
    cause = failure.__cause__ if isinstance(failure, CatalogError) else failure
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(cause, OSError) and cause.errno == errno.ENOSPC
