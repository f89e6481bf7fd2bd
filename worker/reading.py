"""Reads HTTP/1.1 messages from a blocking socket: heads, and bodies in pieces or whole. It answers nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Protocol

from transom.worker.errors import Gone, Refused

PIECE = 1024 * 1024
_RECEIVE = 120 * 1024  # a small request arrives in one call; malloc maps and unmaps pages for each that is larger
_MAX_HEAD = 64 * 1024
_MAX_LINE = 4 * 1024


class Input(Protocol):
    """An object's bytes on their way here, to be read once.

    `size` is None where it is not known beforehand; `broken` tells that they ended before their end, whatever the
    author's code made of the exception.
    """

    size: int | None
    broken: bool

    @property
    def in_hand(self) -> bool:
        """Whether all of them have come already."""

    def read(self) -> bytes:
        """Return all of them."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield them in pieces of up to 1 MiB."""


class Reader:
    """Buffered reading; every call raises Gone when the other end has left."""

    __slots__ = ("_at", "_data", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = b""  # what has come, of which what lies before `_at` was taken
        self._at = 0

    def holds(self, size: int) -> bool:
        """Whether so many bytes have come already."""
        return len(self._data) - self._at >= size

    def head(self) -> bytes:
        """Return a message's head without the empty line after it; b"" when the other end has left before one."""
        while (end := self._data.find(b"\r\n\r\n", self._at)) < 0:
            if self.holds(_MAX_HEAD):
                raise Refused(431, "the head of this request is too large")
            if not self._add(self._receive(_RECEIVE)):
                if self.holds(1):
                    raise Gone
                return b""
        return self._taken(end, after=4)

    def line(self) -> bytes:
        """Return what comes before the next CRLF."""
        while (end := self._data.find(b"\r\n", self._at)) < 0:
            if self.holds(_MAX_LINE):
                raise Refused(400, "a line of this body is too long")
            self._add(self._more(_RECEIVE))
        return self._taken(end, after=2)

    def some(self, limit: int) -> bytes:
        """Return at least one byte, and at most `limit`."""
        return self._taken(self._at + limit) if self.holds(1) else self._more(limit)

    def exactly(self, size: int) -> bytes:
        """Return `size` bytes."""
        if self.holds(size):
            return self._taken(self._at + size)
        parts = [self._taken(len(self._data))]
        missing = size - len(parts[0])
        while missing >= _RECEIVE:
            # Waiting for all of it in one call saves a copy; nothing is reserved that doesn't come.
            parts.append(self._more(missing, socket.MSG_WAITALL))
            missing -= len(parts[-1])
        while missing:
            self._add(self._more(_RECEIVE))
            parts.append(self._taken(self._at + missing))
            missing -= len(parts[-1])
        return b"".join(parts)

    def _taken(self, end: int, after: int = 0) -> bytes:
        """Take what comes before `end`, and pass over so many bytes after it."""
        data = self._data[self._at : end]
        self._at = min(end, len(self._data)) + after
        return data

    def _add(self, more: bytes) -> bool:
        """Put what has come behind the rest; whether anything did."""
        self._data = self._data[self._at :] + more
        self._at = 0
        return bool(more)

    def _more(self, size: int, flags: int = 0) -> bytes:
        more = self._receive(size, flags)
        if not more:
            raise Gone
        return more

    def _receive(self, size: int, flags: int = 0) -> bytes:
        try:
            return self._sock.recv(size, flags)
        except OSError as error:
            raise Gone from error


class Body:
    """A message's body; `size` is None for a chunked one. An `Input`.

    `expected` is the socket of a sender that waits to be told that its body is wanted.
    """

    __slots__ = ("_begun", "_chunked", "_expected", "_left", "_reader", "broken", "ended", "size")

    def __init__(self, reader: Reader, size: int | None, expected: socket.socket | None = None) -> None:
        self.size = size
        self.ended = size == 0
        self.broken = False  # whether it ended before its end
        self._reader = reader
        self._left = size or 0
        self._chunked = size is None
        self._begun = False
        self._expected = expected

    @property
    def in_hand(self) -> bool:
        """Whether all of it has come already."""
        return not self._chunked and self._reader.holds(self._left)

    def read(self) -> bytes:
        """Return the rest."""
        if self._chunked:
            return b"".join(self)
        self.broken = True  # unless what follows gets to its end
        self._ask()
        data = self._reader.exactly(self._left)
        self._left = 0
        self.ended, self.broken = True, False
        return data

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._piece():
            yield piece

    def drained(self, limit: int) -> bool:
        """Read up to some more than `limit` bytes for nothing; whether that was the rest."""
        while not self.ended and self._expected is None and limit > 0:
            limit -= len(self._piece())
        return self.ended

    def _piece(self) -> bytes:
        if self.ended:
            return b""
        self._ask()
        try:
            if self._left == 0 and not self._next_chunk():
                return b""
            piece = self._reader.some(min(self._left, PIECE))
            self._left -= len(piece)
        except (Gone, Refused):
            self.broken = True
            raise
        self.ended = self._left == 0 and not self._chunked
        return piece

    def _ask(self) -> None:
        if self._expected is not None:
            sock, self._expected = self._expected, None
            try:
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            except OSError as error:
                raise Gone from error

    def _next_chunk(self) -> bool:
        if self._begun and self._reader.line():
            raise Refused(400, "a chunk of this body is longer than it says")
        self._begun = True
        text = self._reader.line().partition(b";")[0].strip()
        try:
            self._left = int(text, 16) if text.isalnum() else -1
        except ValueError:
            self._left = -1
        if self._left < 0:
            raise Refused(400, "a chunk of this body has no size")
        if self._left == 0:
            while self._reader.line():
                pass  # trailers say nothing to us
            self.ended = True
        return not self.ended
