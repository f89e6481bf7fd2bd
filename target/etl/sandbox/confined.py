"""A program that runs in a sandbox: how it fares, how it ended, and the end of all that it started."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from transom.target.etl.sandbox.cgroups import Group, Hits
from transom.target.etl.sandbox.ending import Bound, Ending, explain
from transom.target.etl.sandbox.program import Program

_PATIENCE_S = 5.0


class Confined:
    """A started program. `process` is what surrounds it; its streams are the program's. Callable from any thread.

    `close` it in any case: that ends all that is left of it. Wait for it here, not by `process`: what it left behind
    can be found only as long as nobody has reaped it.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        program: Program,
        *,
        beside: int,
        group: Group | None = None,
        scratch: Path | None = None,
    ) -> None:
        """Take over a process that leads a group of its own. `beside` others may be around the program."""
        self.process = process
        self.program = program
        self._beside = beside
        self._group = group
        self._scratch = scratch
        self._hits: Hits | None = None
        self._passed: Bound = ""
        self._closing = threading.Lock()
        self._reaping = threading.Lock()
        self._timer: threading.Timer | None = None
        if program.limits.wall_s:
            self._timer = threading.Timer(program.limits.wall_s, self.kill, ["time"])
            self._timer.daemon = True
            self._timer.start()

    @property
    def pid(self) -> int:
        """The outermost process."""
        return self.process.pid

    @property
    def inside(self) -> int:
        """The program itself, by its number outside; the outermost process while it has not got that far."""
        pid = self.pid
        for _ in range(self._beside):
            children = _children(pid)
            if not children:
                return self.pid
            pid = children[0]
        return pid

    def ended(self, words: str = "") -> Ending | None:
        """None while it runs, else how it ended; `words` are its last on standard error. Never blocks."""
        returncode = self._poll()
        return None if returncode is None else self._explain(returncode, words)

    def wait(self, timeout_s: float | None = None, words: str = "") -> Ending:
        """Wait for the end; raises TimeoutError."""
        if self._poll() is None:
            with _watching([self.pid]) as program:
                program.gone(timeout_s)
        ending = self.ended(words)
        if ending is None:
            raise TimeoutError
        return ending

    def hits(self) -> Hits | None:
        """What its limits refused so far; None where nobody counts."""
        group = self._group
        return self._hits if group is None else group.hits()

    def terminate(self) -> None:
        """Ask the program to end."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.inside, signal.SIGTERM)

    def kill(self, passed: Bound = "") -> None:
        """End the program and all it started, now; `passed` names the limit that it passed, if that is why."""
        if self._poll() is None:
            self._passed = passed
            self._stop_outermost()
            # The outermost ends the others with it; those that have only just begun may not have arranged for that.
            with _watching([self.pid, *_descendants(self.pid)]) as others:
                self._kill_group()
                others.kill()
                others.gone(_PATIENCE_S)
            self._poll()
        group = self._group
        if group is not None:
            group.kill()

    def stop(self, grace_s: float) -> None:
        """Ask the program to end, and end what is left after a while."""
        self.terminate()
        with contextlib.suppress(TimeoutError):
            self.wait(grace_s)
        self.close()

    def close(self) -> None:
        """End all that is left, and remove what there was for it. Harmless when done before."""
        with self._closing:
            if self._timer is not None:
                self._timer.cancel()
            self.kill()
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()
            if self._group is not None:
                self._hits = self._group.hits()
                self._group.remove()
                self._group = None
            if self._scratch is not None:
                shutil.rmtree(self._scratch, ignore_errors=True)

    def _explain(self, returncode: int, words: str) -> Ending:
        return explain(returncode, self.program.limits, self.hits(), words=words, passed=self._passed)

    def _poll(self) -> int | None:
        """The exit status, None while it runs. Once it is over, so are those that it left in its process group."""
        with self._reaping:
            if self.process.returncode is None:
                over = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if over is None:
                    return None
                self._kill_group()  # before it is reaped: from then on the number may be another's
            return self.process.poll()

    def _stop_outermost(self) -> None:
        """Let it start nothing more, so that its descendants can be told."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class _Watched:
    """Processes held on to, so that their numbers can't become others'."""

    def __init__(self, fds: list[int]) -> None:
        self._fds = fds

    def kill(self) -> None:
        """Kill each."""
        for fd in self._fds:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)

    def gone(self, timeout_s: float | None) -> None:
        """Wait until all have ended, at most so many seconds for each."""
        for fd in self._fds:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            poller.poll(None if timeout_s is None else timeout_s * 1000)


@contextlib.contextmanager
def _watching(pids: Iterable[int]) -> Iterator[_Watched]:
    with contextlib.ExitStack() as stack:
        fds: list[int] = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                fds.append(os.pidfd_open(pid))
                stack.callback(os.close, fds[-1])
        yield _Watched(fds)


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
