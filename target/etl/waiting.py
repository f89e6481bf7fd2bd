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
    """Does work on the event loop's own thread: whenever that has to wait, it goes back to the loop until it is over.

    One after another, and then its `end`: to make this costs as much as an exchange with a worker. All that is called
    from outside the work is called on the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(self._serve)
        self._loop = loop
        self._work: Callable[[], None] | None = None
        self._waker: object = None
        self._resuming: asyncio.Handle | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Do this, as far as it goes without waiting. It is all that is to be done now, and raises nothing."""
        self._work = work
        self.switch()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it runs on."""
        return self._loop

    def ready(self, sock: socket.socket, events: int, timeout_s: float) -> int:
        """Wait until the socket can be read or written; which, as in poll(2), 0 when `timeout_s` passes first."""
        loop, fd = self._loop, sock.fileno()
        if events & select.POLLIN:
            loop.add_reader(fd, self.resume, select.POLLIN)
        if events & select.POLLOUT:
            loop.add_writer(fd, self.resume, select.POLLOUT)
        try:
            return self.leave(timeout_s)
        finally:
            if events & select.POLLIN:
                loop.remove_reader(fd)
            if events & select.POLLOUT:
                loop.remove_writer(fd)

    def park(self, timeout_s: float, waker: object = None) -> None:
        """Wait until `waker` wakes it, or `timeout_s` passes."""
        self._waker = waker
        try:
            self.leave(timeout_s)
        finally:
            self._waker = None

    def wake(self, waker: object) -> None:
        """Have the work go on if it waits for this."""
        if self._waker is waker:
            self.resume(0)

    def stop(self, error: BaseException) -> None:
        """Have what the work waits for raise this instead; nothing once it has ended."""
        if self._work is not None:
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
                self._loop.call_soon_threadsafe(self.wake, done)

        # one of its own: what hangs takes no thread away from others, nor does the process wait for it at its end
        threading.Thread(target=do, name="aside", daemon=True).start()
        while not done.done():
            self.park(LOOK_S, done)
            look()
        return done.result()

    def leave(self, timeout_s: float) -> int:
        """Back to the loop, until `resume` or for so long; what that was told, or 0. From the work itself."""
        assert self.parent is not None
        timer = self._loop.call_later(timeout_s, self.resume, 0)
        try:
            return cast("int", self.parent.switch())
        finally:
            timer.cancel()
            if self._resuming is not None:
                self._resuming.cancel()
                self._resuming = None

    def resume(self, told: int) -> None:
        """Have the work go on after a `leave`, with what it is to be told."""
        # Not from here: uvloop calls this out of libuv, which has pointers to its stack that a switch would take away
        if self._resuming is None:
            self._resuming = self._loop.call_soon(self.switch, told)

    def end(self) -> None:
        """Do no more; for one that does nothing. Whoever is not ended is never freed."""
        self.switch()

    def _serve(self) -> None:
        while self._work is not None:
            self._work()
            self._work = None
            assert self.parent is not None
            self.parent.switch()


class Arrivals:
    """What comes in at one socket, for the work of one event loop. Between waits the loop goes on looking there.

    To have it look anew for every wait costs more than the wait. The socket must be closed by `close`.
    """

    __slots__ = ("_looking", "_sock", "_work", "loop")

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._sock = sock
        self._work: LoopWork | None = None
        self._looking = False

    def wait(self, work: LoopWork, timeout_s: float) -> None:
        """Wait until something is there to be read, or `timeout_s` passes. For the work."""
        if not self._looking:
            self.loop.add_reader(self._sock, self._tell)
            self._looking = True
        self._work = work
        try:
            work.leave(timeout_s)
        finally:
            self._work = None

    def end(self) -> None:
        """Look no more, until somebody waits again. On the loop."""
        if self._looking:
            self._looking = False
            self.loop.remove_reader(self._sock)

    def close(self) -> None:
        """Close the socket; from any thread."""
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            self._close()
            return
        try:
            self.loop.call_soon_threadsafe(self._close)
        except RuntimeError:  # the loop is closed, and looks no more
            self._sock.close()

    def _close(self) -> None:
        self.end()
        self._sock.close()

    def _tell(self) -> None:
        if self._work is None:
            self.end()  # nobody reads it now, so the loop would tell of it without end
        else:
            self._work.resume(select.POLLIN)


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
            self._work.park(timeout_s, self)
            return self.take()
        return True

    def give(self) -> None:
        """Give a place back. On the event loop."""
        self._places.release()
        if self._work is not None:
            self._work.wake(self)


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
