"""One request and its answer over one connection: sends while it receives, so neither end can block the other.

It knows nothing of the protocol: pieces to send come as lists of buffers, what is received goes to the caller.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator, Sequence
from typing import Generic

from transom.target.etl.transports.connections import C
from transom.target.etl.waiting import Look, on_loop

Buffers = Sequence[bytes | memoryview]
READ = 120 * 1024  # asked for where the length isn't known; malloc maps and unmaps pages for each that is larger
MAX_READ = 1024 * 1024
_TO_READ = select.POLLIN | select.POLLHUP | select.POLLERR


class BrokenError(Exception):
    """The connection broke, or ended where more had to come."""


class Exchange(Generic[C]):
    """Sends `first`, then what `rest` yields, each only when the one before it is sent."""

    __slots__ = ("_look", "_on_loop", "_pending", "_rest", "_sending", "_sock", "all_sent", "connection", "heard")

    def __init__(self, connection: C, first: Buffers, rest: Iterator[Buffers], look: Look) -> None:
        self.connection = connection
        self.all_sent = False
        self.heard = False  # whether anything came back
        self._sock = connection.sock
        self._pending = first
        self._rest = rest
        self._look = look
        self._sending = True
        self._on_loop = on_loop() is not None

    def receive(self, at_most: int = READ) -> bytes:
        """The next bytes that came, b"" at the end of the stream; sends meanwhile.

        Raises BrokenError, what the rest of the input raises, and what `look` has to say.
        """
        self._look()
        data = None
        while self._sending and data is None:
            data = self._send(at_most)
        if data is None and self.heard:
            self.connection.acknowledge()
        while data is None:
            data = self._arriving(at_most)
            if data is None:
                self._look()
        if data:
            self.heard = True
        return data

    def send_also(self, data: bytes) -> None:
        """Send something of the protocol's own next, between two pieces."""
        self._pending = [*self._pending, data]
        self._sending, self.all_sent = True, False

    def stop_sending(self) -> None:
        """Send no more: the answer is what counts now. The connection can't be used again, unless all was sent."""
        self._sending = False

    def _send(self, at_most: int) -> bytes | None:
        if not self._pending:
            self._pending = next(self._rest, ())
            if not self._pending:
                self._sending, self.all_sent = False, True
                return None
            data = self._receive(at_most, socket.MSG_DONTWAIT)
            if data is not None:
                return data
        try:
            sent = self._sock.sendmsg(self._pending, (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._sending = False  # the worker reads no more, but may have said why
            return None
        self._pending = _after(self._pending, sent)
        if not self._pending:
            return None
        events = self.connection.wait()
        self._look()
        return self._receive(at_most, socket.MSG_DONTWAIT) if events & _TO_READ else None

    def _arriving(self, at_most: int) -> bytes | None:
        """What comes within a quarter of a second."""
        if not self._on_loop:
            return self._receive(at_most, 0)
        if self.heard and (data := self._receive(at_most, socket.MSG_DONTWAIT)) is not None:
            return data  # more was there already
        self.connection.listen()
        return self._receive(at_most, socket.MSG_DONTWAIT)

    def _receive(self, at_most: int, flags: int) -> bytes | None:
        try:
            return self._sock.recv(at_most, flags)
        except BlockingIOError:
            return None
        except OSError as error:
            raise BrokenError from error


def _after(buffers: Buffers, sent: int) -> Buffers:
    """What is left of the buffers after so many bytes."""
    for i, buffer in enumerate(buffers):
        if sent < len(buffer):
            return [memoryview(buffer)[sent:], *buffers[i + 1 :]]
        sent -= len(buffer)
    return ()
