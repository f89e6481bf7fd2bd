"""How the work of a run waits: in a thread of its own it blocks, on the event loop others go on meanwhile.

The work itself is the same, and calls what is here wherever it would block. It knows nothing of runs or transports.
"""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar, cast

from greenlet import getcurrent, greenlet

T = TypeVar("T")
Look = Callable[[], None]  # raises what ends the wait
LOOK_S = 0.25


class LoopWork(greenlet):
    """Work on the event loop's own thread: whenever it has to wait, it goes back to the loop until that is over.

    It begins with `switch`, called on the loop.
    """

    def __init__(self, work: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(work)
        self._loop = loop
        self._parked = False
        self._resuming: asyncio.Handle | None = None

    def ready(self, sock: socket.socket, events: int, timeout_s: float) -> int:
        """Wait until the socket can be read or written; which, as in poll(2), 0 when `timeout_s` passes first."""
        loop, fd = self._loop, sock.fileno()
        if events & select.POLLIN:
            loop.add_reader(fd, self._resume, select.POLLIN)
        if events & select.POLLOUT:
            loop.add_writer(fd, self._resume, select.POLLOUT)
        try:
            return self._leave(timeout_s)
        finally:
            if events & select.POLLIN:
                loop.remove_reader(fd)
            if events & select.POLLOUT:
                loop.remove_writer(fd)

    def park(self, timeout_s: float) -> None:
        """Wait for `wake`, or until `timeout_s` passes."""
        self._parked = True
        try:
            self._leave(timeout_s)
        finally:
            self._parked = False

    def wake(self) -> None:
        """Have the work go on if it is parked. On the loop, from outside the work."""
        if self._parked:
            self._resume(0)

    def stop(self, error: BaseException) -> None:
        """Have what it waits for raise this instead. On the loop, from outside the work; nothing once it has ended."""
        if not self.dead:
            self.throw(error)

    def aside(self, work: Callable[[], T], look: Look) -> T:
        """Have a thread do what blocks, and wait for it: no longer than until `look` raises something."""
        done: Future[T] = Future()

        def do() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self.wake)

        # one of its own: what hangs takes no thread away from others, nor does the process wait for it at its end
        threading.Thread(target=do, name="aside", daemon=True).start()
        while not done.done():
            self.park(LOOK_S)
            look()
        return done.result()

    def _leave(self, timeout_s: float) -> int:
        """Back to the loop, until `_resume` or for so long; what that was told, or 0."""
        assert self.parent is not None
        timer = self._loop.call_later(timeout_s, self._resume, 0)
        try:
            return cast("int", self.parent.switch())
        finally:
            timer.cancel()
            if self._resuming is not None:
                self._resuming.cancel()
                self._resuming = None

    def _resume(self, told: int) -> None:
        # Not from here: uvloop calls this out of libuv, which has pointers to its stack that a switch would take away
        if self._resuming is None:
            self._resuming = self._loop.call_soon(self.switch, told)


class Room:
    """Places for what the work makes and the event loop takes; made by the work."""

    def __init__(self, places: int) -> None:
        self._places = threading.Semaphore(places)
        self._work = on_loop()

    def take(self) -> bool:
        """Take a place if one is free. For the work."""
        return self._places.acquire(blocking=False)

    def wait(self, timeout_s: float) -> bool:
        """Take a place as soon as one is free; False when `timeout_s` passes first. For the work."""
        if self._work is None:
            return self._places.acquire(timeout=timeout_s)
        if not self.take():
            self._work.park(timeout_s)
            return self.take()
        return True

    def give(self) -> None:
        """Give a place back. On the event loop."""
        self._places.release()
        if self._work is not None:
            self._work.wake()


def on_loop() -> LoopWork | None:
    """The work that is running, if it runs on an event loop."""
    current = getcurrent()
    return current if isinstance(current, LoopWork) else None


def sleep(seconds: float) -> None:
    """Do nothing for that long."""
    work = on_loop()
    if work is None:
        time.sleep(seconds)
    else:
        work.park(seconds)


def aside(work: Callable[[], T], look: Look) -> T:
    """Do what blocks, and can't wait by itself; see `LoopWork.aside`."""
    here = on_loop()
    return work() if here is None else here.aside(work, look)
