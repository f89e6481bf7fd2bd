"""The output of a run as its readers see it: finished in the cache, growing in a file, or straight from the run."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator

from transom.target.errors import SlowDown, TargetError
from transom.target.etl.waiting import Room
from transom.target.etl.watch import AbandonedError, Watch
from transom.target.store.files import TURN, OpenFile, whole

MIB = 1024 * 1024
HEAD_SIZE = MIB  # an output that ends within it goes out with its length
_CHUNK = MIB
_AHEAD = 4  # chunks a direct run may be ahead of its client
_TELL_S = 0.005
_CLIENT_IDLE_S = 60.0


class OpenResult:
    """A finished result opened for reading; it stays readable when the cache evicts it. Close it."""

    def __init__(self, fd: int, size: int, content_type: str) -> None:
        self._file = OpenFile(fd)
        self.size = size
        self.content_type = content_type

    def read(self, start: int, stop: int) -> bytes:
        """Read [start, stop) at once; raises SourceChanged rather than return less."""
        return whole(self._file.read(stop - start, start), stop - start, "A cached result")

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield [start, stop) and close. What the page cache holds needs no thread."""
        turn = 0
        try:
            while start < stop:
                end = min(start + _CHUNK, stop)
                data = self._file.read_cached(end - start, start)
                if data is None:
                    data = await asyncio.to_thread(self.read, start, end)
                elif (turn := turn + 1) % TURN == 0:
                    await asyncio.sleep(0)  # a client that never waits must not hold the event loop
                yield data
                start += len(data)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file; safe to call twice. A body that was never begun is closed with its last reference."""
        self._file.close()


class CachedRun:
    """One run that makes a result. Its file can be read while it grows."""

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type
        self.produced = 0
        self.done = False
        self.error: TargetError | None = None
        self._fd = -1
        self._whole = False
        self._written = 0
        self._telling = False
        self._changed = asyncio.Event()

    async def wait(self, size: int | None, timeout_s: float) -> None:
        """Wait until `size` bytes are there (None: all of them) or it ended.

        Raises what the run failed with, and SlowDown when `timeout_s` passes first: the run goes on.
        """
        give_up = time.monotonic() + timeout_s
        while not self.done and (size is None or self.produced < size):
            left = give_up - time.monotonic()
            try:
                await asyncio.wait_for(self._changed.wait(), left if left < float("inf") else None)
            except TimeoutError:
                raise not_ready() from None
        if self.error is not None:
            raise self.error

    def opened(self) -> OpenResult | None:
        """The finished result, or None when another process made it."""
        return OpenResult(os.dup(self._fd), self.produced, self.content_type) if self._whole else None

    async def follow(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come, to the end; raises what the run fails with."""
        offset = 0
        while True:
            await self.wait(offset + 1, float("inf"))
            if offset == self.produced and self.done:
                return
            piece = await asyncio.to_thread(os.pread, self._fd, min(_CHUNK, self.produced - offset), offset)
            if piece:  # none is left where the run failed meanwhile
                offset += len(piece)
                yield piece

    # --- from the run's thread --------------------------------------------------------------------

    def attach(self, fd: int) -> None:
        """Own the file that the run writes; it is closed with the last reader."""
        self._fd = fd
        weakref.finalize(self, os.close, fd)

    def drop(self) -> None:
        """Give the room of a failed run back now: its error, by the traceback, may keep its file open for long."""
        if self._fd >= 0 and not self._whole:
            os.ftruncate(self._fd, 0)

    def wrote(self, produced: int, loop: asyncio.AbstractEventLoop) -> None:
        """Note how many bytes the file holds now. Readers hear of it within a moment."""
        self._written = produced
        if not self._telling:
            self._telling = True
            loop.call_soon_threadsafe(loop.call_later, _TELL_S, self._tell)

    # --- on the event loop ------------------------------------------------------------------------

    def grow(self, produced: int, *, whole: bool = False) -> None:
        """Let readers have `produced` bytes; `whole` tells that these are all."""
        self.produced, self._whole = produced, whole
        self._notify()

    def finish(self, error: TargetError | None) -> None:
        """End the run, once; later calls change nothing."""
        if not self.done:
            self.done, self.error = True, error
            self._notify()

    def _tell(self) -> None:
        self._telling = False  # before the look: what is written after it is told by another
        if not self.done and not self._whole:
            self.grow(self._written)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class DirectRun:
    """One run that feeds one client, at most a few chunks ahead of it.

    `size` is the output's length in bytes, None where only the run will tell.
    """

    def __init__(self, content_type: str, size: int | None, watch: Watch) -> None:
        self.content_type = content_type
        self.size = size
        self.ended = False
        self._watch = watch
        self._error: TargetError | None = None
        self._pieces: deque[bytes] = deque()
        self._room: Room | None = None  # made once the output turns out to be more than a head
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None

    async def ready(self, timeout_s: float) -> bool:
        """Wait until there is a piece or the run has ended; False when `timeout_s` passes first. For one at a time."""
        if not self._pieces and not self.ended:
            waiter = self._waiter = self._loop.create_future()
            timer = self._loop.call_later(timeout_s, self._wake)
            try:
                await waiter
            finally:
                timer.cancel()
        return bool(self._pieces) or self.ended

    async def next(self) -> bytes | None:
        """The next piece, None at the end; raises what the run failed with. For one at a time.

        The first is longer than `HEAD_SIZE`, or is all.
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.ended:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        if self._room is not None:
            self._room.give()
        return self._pieces.popleft()

    def cancel(self) -> None:
        """Stop the run: nobody reads it any more."""
        self._watch.abandon()
        if self._room is not None:
            self._room.give()

    def finish(self, error: TargetError | None) -> None:
        """End the run, once. On the event loop only."""
        if not self.ended:
            self.ended, self._error = True, error
            self._wake()

    def feed(self, pieces: Iterator[bytes]) -> None:
        """Take everything from `pieces`; from the run. What is no more than a head is seen with `finish`."""
        head: list[bytes] = []
        size = 0
        for piece in pieces:
            head.append(piece)
            size += len(piece)
            if size > HEAD_SIZE:
                break
        if head:
            self._pieces.append(b"".join(head) if len(head) > 1 else head[0])
        if size > HEAD_SIZE:
            self._feed_on(pieces)

    def _feed_on(self, pieces: Iterator[bytes]) -> None:
        room = self._room = Room(_AHEAD - 1)  # the head has its place
        self._loop.call_soon_threadsafe(self._wake)
        for piece in pieces:
            self._put(piece, room)

    def _put(self, piece: bytes, room: Room) -> None:
        if not room.take():
            self._watch.pause()
            there = room.wait(_CLIENT_IDLE_S)
            self._watch.resume()
            if not there:
                raise AbandonedError
        self._watch.check()
        self._pieces.append(piece)
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def not_ready() -> SlowDown:
    """The error of a result that isn't there within the wait budget."""
    return SlowDown("The result is not ready yet; the work goes on. Ask again to join it.", retry_after_s=1)
