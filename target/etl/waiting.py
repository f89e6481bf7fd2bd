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
from typing import TypeVar, cast

from greenlet import getcurrent, greenlet

T = TypeVar("T")


class LoopWork(greenlet):
    """Work on the event loop's own thread: whenever it has to wait, it goes back to the loop until that is over.

    It begins with `switch`, called on the loop.
    """

    def __init__(self, work: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(work)
        self._loop = loop
        self._parked = False
        self._waking: asyncio.Handle | None = None

    def ready(self, sock: socket.socket, events: int, timeout_s: float) -> int:
        """Wait until the socket can be read or written; which, as in poll(2), 0 when `timeout_s` passes first."""
        loop, fd = self._loop, sock.fileno()
        if events & select.POLLIN:
            loop.add_reader(fd, self.switch, select.POLLIN)
        if events & select.POLLOUT:
            loop.add_writer(fd, self.switch, select.POLLOUT)
        timer = loop.call_later(timeout_s, self.switch, 0)
        try:
            return cast("int", self._leave())
        finally:
            timer.cancel()
            if events & select.POLLIN:
                loop.remove_reader(fd)
            if events & select.POLLOUT:
                loop.remove_writer(fd)

    def park(self, timeout_s: float) -> None:
        """Wait for `wake`, or until `timeout_s` passes."""
        timer = self._loop.call_later(timeout_s, self.switch)
        self._parked = True
        try:
            self._leave()
        finally:
            self._parked = False
            timer.cancel()
            if self._waking is not None:
                self._waking.cancel()
                self._waking = None

    def wake(self) -> None:
        """Have the work go on if it is parked. On the loop, from outside the work."""
        if self._parked and self._waking is None:
            self._waking = self._loop.call_soon(self.switch)

    def stop(self, error: BaseException) -> None:
        """Have what it waits for raise this instead. On the loop, from outside the work; nothing once it has ended."""
        if not self.dead:
            self.throw(error)

    def aside(self, work: Callable[[], T]) -> T:
        """Have a thread do what blocks, and wait for it."""
        done = self._loop.run_in_executor(None, work)
        done.add_done_callback(self.switch)
        try:
            self._leave()
        finally:
            done.remove_done_callback(self.switch)
        return done.result()

    def _leave(self) -> object:
        assert self.parent is not None
        return self.parent.switch()


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


def aside(work: Callable[[], T]) -> T:
    """Do what blocks, and can't wait by itself."""
    here = on_loop()
    return work() if here is None else here.aside(work)
