"""Forks a job's executors from a process of its own, which holds nothing: no threads, no open database, little memory.

Whoever has any of these must not fork: a lock that another thread held stays locked in the child, and SQLite takes
the locks of inherited connections for the child's own. It knows nothing of tasks.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from transom.target.jobs.engines.base import EngineUnavailable
from transom.target.lifeline import end_with

_OOM_SCORE = 500  # the kernel takes an executor, which is replaced, before the server
_NUMBER = struct.Struct("!q")  # a pid, a wait status, or minus an errno
_START, _REAP = b"S", b"R"
_ORDER = 1 + _NUMBER.size


class Spawner:
    """Starts processes that each run `main` over a socket of theirs, and says how they ended.

    Make it before the process has threads or databases. Whatever it started dies with it, and it with its maker.
    """

    def __init__(self, main: Callable[[socket.socket], None]) -> None:
        self._ordered: list[socket.socket] = []
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._pid = _fork(lambda: _serve(theirs, main), (self._sock,))

    def start(self) -> tuple[int, socket.socket]:
        """Start a process; return its pid and our end of its socket. Raises EngineUnavailable."""
        self.order()
        return self.started()[-1]

    def order(self) -> None:
        """Have a process started, and don't wait for that: `started` gives it. Raises EngineUnavailable."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._sock, [_START + _NUMBER.pack(0)], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise _unavailable(error) from error
        self._ordered.append(ours)

    def started(self) -> list[tuple[int, socket.socket]]:
        """The processes that were ordered since this was last asked, as `start` returns one; waits for them.

        Raises EngineUnavailable if not all could be started; those that were end then.
        """
        ordered, self._ordered = self._ordered, []
        pids: list[int] = []
        failure: OSError | None = None
        for _ in ordered:  # whatever they are, all answers are taken: the next one is another's
            try:
                pids.append(self._answer())
            except OSError as error:
                failure = error
        if failure is None:
            return list(zip(pids, ordered, strict=True))
        for sock in ordered:
            sock.close()
        raise _unavailable(failure) from failure

    def reap(self, pid: int) -> str:
        """Wait for a process that ends; say how it did: "signal 9", "exit code 3". Not before all were `started`."""
        try:
            self._sock.send(_REAP + _NUMBER.pack(pid))
            code = os.waitstatus_to_exitcode(self._answer())
        except OSError as error:
            raise EngineUnavailable(f"the process that starts the job's workers is gone: {error}") from error
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """End it, and what it started; safe to call twice."""
        if self._sock.fileno() < 0:
            return
        self._sock.close()
        for sock in self._ordered:
            sock.close()
        os.kill(self._pid, signal.SIGKILL)  # ours, and not reaped: nobody else has its pid
        os.waitpid(self._pid, 0)

    def _answer(self) -> int:
        data = self._sock.recv(_NUMBER.size)
        if not data:
            raise ConnectionResetError("it has ended")
        number: int = _NUMBER.unpack(data)[0]
        if number < 0:
            raise OSError(-number, os.strerror(-number))
        return number


def _unavailable(error: OSError) -> EngineUnavailable:
    return EngineUnavailable(f"no process for the job's tasks can be started: {error}")


def _serve(sock: socket.socket, main: Callable[[socket.socket], None]) -> None:
    """Start and reap as told, until the maker lets go."""
    while True:
        order, fds, _, _ = socket.recv_fds(sock, _ORDER, 1)
        if not order:
            return
        try:
            answer = _start(main, fds[0], sock) if order[:1] == _START else _reap(order)
        except OSError as error:
            answer = -(error.errno or 1)
        sock.send(_NUMBER.pack(answer))


def _start(main: Callable[[socket.socket], None], fd: int, ours: socket.socket) -> int:
    with socket.socket(fileno=fd) as theirs:
        return _fork(lambda: _be_executor(main, theirs), (ours,))


def _reap(order: bytes) -> int:
    """Ended processes keep their pid until then, so that nobody kills another process by it."""
    return os.waitpid(_NUMBER.unpack(order[1:])[0], 0)[1]


def _be_executor(main: Callable[[socket.socket], None], sock: socket.socket) -> None:
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    main(sock)


def _fork(run: Callable[[], None], ours: tuple[socket.socket, ...]) -> int:
    """Run `run` in a child that dies with this process; return its pid. `ours` are sockets not meant for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _be_child(run, parent, ours)
    return pid


def _be_child(run: Callable[[], None], parent: int, ours: tuple[socket.socket, ...]) -> NoReturn:
    code = 1
    try:
        _detach(parent)
        for sock in ours:
            sock.close()
        run()
        code = 0
    except BaseException:  # whatever it is, it must not get back into the parent's code
        traceback.print_exc()
    finally:
        os._exit(code)  # nothing of the parent's is finalised


def _detach(parent: int) -> None:
    """Leave behind what was the parent's: its signal handlers, its input, its garbage."""
    if not end_with(parent):
        os._exit(1)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: whoever started the job decides
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    gc.freeze()
