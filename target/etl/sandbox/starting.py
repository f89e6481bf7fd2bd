"""Starts a program in a given way: makes what is needed around it, and undoes that if the start fails.

It chooses no way and judges nothing.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

from transom.target.etl.sandbox import confine, system
from transom.target.etl.sandbox.cgroups import Group, Home
from transom.target.etl.sandbox.confined import Confined
from transom.target.etl.sandbox.program import SCRATCH, Program
from transom.target.etl.sandbox.ways import Start, Surroundings, Way

_COUNTED_IN_NAMESPACE = (5, 14)  # the Linux from which on a user namespace counts its processes by itself


class Streams(NamedTuple):
    """A program's standard streams, as for subprocess.Popen."""

    stdin: int | IO[bytes] = subprocess.DEVNULL
    stdout: int | IO[bytes] = subprocess.DEVNULL
    stderr: int | IO[bytes] = subprocess.DEVNULL


class Starter:
    """Starts programs. Callable from any thread. What still runs ends with it.

    `folder` is for scratch folders. Nothing below `hidden` is shown. `marks` go into every process's environment.
    """

    def __init__(self, folder: Path, hidden: Iterable[Path], marks: Mapping[str, str]) -> None:
        self._folder = folder
        self._hidden = tuple(path.absolute() for path in hidden)
        self._marks = dict(marks)
        self._usual = _scheduling()
        # The kernel ends a program with the thread that started it: with one that lasts, then, whoever asks.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sandbox")

    def start(self, way: Way, home: Home | None, program: Program, streams: Streams) -> Confined:
        """Start a program. Raises OSError, and ValueError for one that can't be started this way."""
        if any("\0" in text for text in (*program.argv, *program.env, *program.env.values())):
            raise ValueError("a NUL character, which would end a word")  # and begin one of the sandbox's own
        with contextlib.ExitStack() as undo:
            group = home.make(program.limits, way.beside) if home else None
            if group:
                undo.callback(group.remove)
            scratch = self.folder(way) if way.shares_files else None
            if scratch:
                undo.callback(shutil.rmtree, scratch, ignore_errors=True)
            if user_of(way) is not None:
                _hand_over(program.write)
            start = way.start_of(program, self._surroundings(way, group, program, scratch))
            try:
                process = self._thread.submit(self._spawn, start, streams, serves=program.serves).result()
            finally:
                for fd in start.fds:
                    os.close(fd)
            undo.pop_all()
        return Confined(process, program, beside=way.beside, group=group, scratch=scratch)

    def close(self) -> None:
        """End every program that still runs."""
        self._thread.shutdown()

    def folder(self, way: Way | None) -> Path:
        """Make a folder that a program may be given to write to. Whoever asks removes it."""
        user = user_of(way)
        # Who is not shown the files one by one must find the way there.
        open_to_all = user is not None and way is not None and way.shares_files
        self._folder.mkdir(parents=True, exist_ok=True)
        made = tempfile.mkdtemp(prefix=f"sandbox.{os.getpid()}.", dir=None if open_to_all else self._folder)
        if user is not None:
            os.chown(made, user, user)
        return Path(made)

    def _surroundings(self, way: Way, group: Group | None, program: Program, scratch: Path | None) -> Surroundings:
        counted = tuple(group.folders) if group else ()
        return Surroundings(
            doors=group.doors if group else (),
            counted=counted,
            scratch=scratch or Path(SCRATCH),
            hidden=self._hidden,
            marks=self._marks,
            others=_others(way) if program.limits.pids and "pids" not in counted else 0,
        )

    def _spawn(self, start: Start, streams: Streams, *, serves: bool) -> subprocess.Popen[bytes]:
        with contextlib.suppress(OSError):  # a filter around this process may forbid it
            # this thread's own, and so that of what it starts
            os.sched_setscheduler(0, *((os.SCHED_BATCH, os.sched_param(0)) if serves else self._usual))
        return subprocess.Popen(  # noqa: S603 - what it may do is this package's business
            start.argv,
            bufsize=0,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            env={**self._marks, **start.env},
            cwd="/",
            pass_fds=start.fds,
            start_new_session=True,  # to be killed with all that stays in its process group
        )


def _scheduling() -> tuple[int, os.sched_param]:
    """How this thread is scheduled; as most are, where the C library doesn't tell."""
    try:
        return os.sched_getscheduler(0), os.sched_getparam(0)
    except OSError:
        return os.SCHED_OTHER, os.sched_param(0)


def user_of(way: Way | None) -> int | None:
    """The user that programs run as, as the whole machine sees it; None for this process's own."""
    return system.USER if way is not None and way.steps_down and os.getuid() == 0 else None


def _hand_over(paths: Iterable[Path]) -> None:
    """Make nobody the owner of what nobody is to write to."""
    for path in paths:
        if path.stat().st_uid != system.USER:
            os.chown(path, system.USER, system.USER)


def _others(way: Way) -> int:
    """Processes that the kernel counts against a program's limit, though they are not its own."""
    if way.shares_files:
        return 0  # it looks for itself, when it is about to run
    if way.steps_down:
        return confine.tasks_of(system.USER)
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    return 0 if release >= _COUNTED_IN_NAMESPACE else confine.tasks_of(os.getuid())
