"""The local engine: executors forked on this machine, each with a site of its own, performing one task at a time.

It knows nothing of what a task does. Make it first of all: see `transom.target.jobs.engines.spawner`.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic

from transom.target.jobs.engines.base import Engine, EngineUnavailable, Finished, Opener, R, T, Work
from transom.target.jobs.engines.executor import FREE, RESULT, TASK, WORK, execute, load_error, receive, send
from transom.target.jobs.engines.spawner import Spawner

MOST_EXECUTORS = 64
_LOOK_S = 0.2
_GOODBYE_S = 2.0  # for an idle executor to close its site
_QUICK_S = 0.5  # an executor whose tasks take less gets the next one before it asks: its pipe never idles
_AHEAD_BYTES = 64 * 1024  # what fits into the pipe of an executor that doesn't read yet


@dataclass(slots=True, eq=False)
class _Executor(Generic[T]):
    """An executor as the runner sees it. `doing` holds what it was sent, in the order in which it does it.

    One that is `free` only waits for the end of the first of these.
    """

    pid: int
    sock: socket.socket
    doing: deque[_Sent[T]] = field(default_factory=deque)
    work: bytes = b""
    quick: bool = False
    free: bool = False
    begun_s: float = 0.0
    leaving: bool = False

    @property
    def takes_more(self) -> bool:
        """Whether it does nothing, or will soon."""
        return not self.doing or ((self.quick or self.free) and len(self.doing) == 1)


@dataclass(slots=True)
class _Sent(Generic[T]):
    """A task, and how it is sent."""

    task: T
    data: bytes


class LocalEngine(Engine):
    """Performs tasks on this machine's cores. `ready` executors are started at once, and open their sites."""

    def __init__(self, opener: Opener, ready: int = 0) -> None:
        self._spawner = Spawner(partial(execute, opener))
        self._executors: list[_Executor[Any]] = []
        for _ in range(min(ready, self.cores, MOST_EXECUTORS)):
            self._spawner.order()  # who makes this engine has other things to do than to wait for that

    @property
    def cores(self) -> int:
        """Those that this process may use."""
        return len(os.sched_getaffinity(0))

    def run(
        self, work: Work[T, R], tasks: Iterable[T], *, width: int, look: Callable[[], None] | None = None
    ) -> Generator[Finished[T, R], None, None]:
        """Perform every task; a lost executor loses the task that it was doing, and no other."""
        self._take_ordered()
        executors: list[_Executor[T]] = self._executors
        run: _Run[T, R] = _Run(
            self._spawner, executors, pickle.dumps(work), iter(tasks), min(width, MOST_EXECUTORS), look
        )
        try:
            yield from run.finished()
        except BaseException:
            self._kill()
            raise

    def close(self) -> None:
        """Let idle executors close their sites, a moment long; then none is left."""
        with suppress(EngineUnavailable):
            self._take_ordered()
        if not any(executor.doing for executor in self._executors):
            self._say_goodbye()
        try:
            self._kill()
        finally:
            self._spawner.close()

    def _take_ordered(self) -> None:
        self._executors += [_Executor(pid, sock) for pid, sock in self._spawner.started()]

    def _say_goodbye(self) -> None:
        for executor in self._executors:
            executor.sock.shutdown(socket.SHUT_WR)
        end = time.monotonic() + _GOODBYE_S
        for executor in self._executors:
            executor.sock.settimeout(max(0.001, end - time.monotonic()))
            with suppress(OSError):
                executor.sock.recv(1)  # it ends by ending

    def _kill(self) -> None:
        executors = self._executors[:]
        self._executors.clear()
        if executors:
            bury(self._spawner, *executors)


@dataclass(slots=True)
class _Run(Generic[T, R]):
    """One run: who does what. `waiting` was taken and is with no executor."""

    spawner: Spawner
    executors: list[_Executor[T]]
    work: bytes
    tasks: Iterator[T]
    width: int
    look: Callable[[], None] | None
    waiting: deque[_Sent[T]] = field(default_factory=deque)

    def finished(self) -> Iterator[Finished[T, R]]:
        """Hand out and take back until nothing is left."""
        while True:
            self._hand_out()
            if not self.waiting and not any(executor.doing for executor in self.executors):
                return
            for executor in self._ready():
                yield from self._take(executor)

    # --- handing out ------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        while self._has_room():
            sent = self._next()
            if sent is None:
                return
            executor = self._choose(len(sent.data))
            if executor is None:
                self.waiting.appendleft(sent)
                return
            self._send(executor, sent)

    def _next(self) -> _Sent[T] | None:
        if self.waiting:
            return self.waiting.popleft()
        for task in self.tasks:
            return _Sent(task, pickle.dumps(task, pickle.HIGHEST_PROTOCOL))
        return None

    def _usable(self) -> list[_Executor[T]]:
        return [executor for executor in self.executors[: self.width] if not executor.leaving]

    def _has_room(self) -> bool:
        return len(self.executors) < self.width or any(executor.takes_more for executor in self._usable())

    def _choose(self, size: int) -> _Executor[T] | None:
        """One that does nothing, else a new one, else one that will soon be free and takes `size` bytes till then."""
        taking = [executor for executor in self._usable() if executor.takes_more]
        for executor in taking:
            if not executor.doing:
                return executor
        if len(self.executors) < self.width:
            self.executors.append(_Executor(*self.spawner.start()))
            return self.executors[-1]
        if not taking or size > _AHEAD_BYTES:
            return None
        return next((executor for executor in taking if executor.free), taking[0])

    def _send(self, executor: _Executor[T], sent: _Sent[T]) -> None:
        try:
            if executor.work is not self.work:
                send(executor.sock, WORK, self.work)
                executor.work = self.work
            send(executor.sock, TASK, sent.data)
        except OSError:  # it has ended, and what it sent before is still to be read
            executor.leaving = True
            self.waiting.appendleft(sent)
            return
        if not executor.doing:
            executor.begun_s = time.monotonic()
        executor.doing.append(sent)

    # --- taking back ------------------------------------------------------------------------------

    def _ready(self) -> list[_Executor[T]]:
        """Those that have sent something, or have ended."""
        poll = select.poll()
        for executor in self.executors:
            poll.register(executor.sock, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(_LOOK_S * 1000)}
        if not ready and self.look is not None:
            self.look()
        return [executor for executor in self.executors if executor.sock.fileno() in ready]

    def _take(self, executor: _Executor[T]) -> Iterator[Finished[T, R]]:
        try:
            kind, payload = receive(executor.sock)
        except (EOFError, OSError):
            yield from self._lose(executor)
            return
        if kind == FREE:
            executor.free = True
            self._hand_out()
            return
        if kind != RESULT:
            raise load_error(payload)
        task, executor.free = executor.doing.popleft().task, False
        now = time.monotonic()
        executor.quick = now - executor.begun_s < _QUICK_S
        executor.begun_s = now
        result: R = pickle.loads(payload)  # noqa: S301 - of our own executor
        if result.worn_out:
            self._bury(executor)
        self._hand_out()  # before the caller looks at it: nobody waits for that
        yield Finished(task, result)

    def _lose(self, executor: _Executor[T]) -> Iterator[Finished[T, R]]:
        doing = executor.doing.popleft() if executor.doing else None
        how = self._bury(executor)
        if doing is not None:
            yield Finished(doing.task, None, lost=how)

    def _bury(self, executor: _Executor[T]) -> str:
        """End an executor; what it hasn't begun goes to others. Say how it ended."""
        self.waiting.extendleft(reversed(executor.doing))
        self.executors.remove(executor)
        return bury(self.spawner, executor)


def bury(spawner: Spawner, *executors: _Executor[Any]) -> str:
    """End executors, wherever they are; say how the last one ended."""
    for executor in executors:
        with suppress(ProcessLookupError):  # it keeps its pid until it is reaped, if there is still who does that
            os.kill(executor.pid, signal.SIGKILL)
        executor.sock.close()
    return [spawner.reap(executor.pid) for executor in executors][-1]
