"""Reads an HTTP/1.1 answer out of the bytes that come (RFC 9112). It opens and knows no connection."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

from transom.target.etl.transports.exchange import MAX_READ, READ, BrokenError

MAX_HEAD = 64 * 1024
_END = b"\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (.*))?", re.DOTALL)
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}(?=[ \t;]|$)")
_NO_BODY = (204, 304)
_SWITCHING = 101
_FINAL = 200
_MAX_DIGITS = 18
_HELD = 64 * 1024
_LATE_ANSWER = re.compile(rb"HTTP/1\.[01] [45][0-9]{2} [^\r]{0,4096}(?:\r\n[^\r]{1,4096}){1,20}\r\n\r\n")


class MalformedError(Exception):
    """What came is no HTTP answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Head:
    """The status line and the headers, their names in lower case."""

    status: int
    reason: str
    headers: dict[bytes, bytes]
    keep_alive: bool

    def body(self) -> Body:
        """The reader for the body that follows."""
        coding = self.headers.get(b"transfer-encoding")
        if self.status in _NO_BODY:
            return SizedBody(0)
        if coding is not None:
            if coding.lower() != b"chunked":
                raise MalformedError(f"the transfer coding {coding!r}")
            return ChunkedBody()
        length = self.headers.get(b"content-length")
        return UnsizedBody(self.headers) if length is None else SizedBody(_length(length))


def read_head(receive: Callable[[], bytes]) -> tuple[Head, bytes]:
    """Read up to the final answer's body; the head, and what came of the body.

    Raises MalformedError, BrokenError when the stream ends first, and what `receive` raises.
    """
    data = b""
    while True:
        end = data.find(_END)
        while end < 0:
            searched = max(0, len(data) - len(_END) + 1)
            more = receive()
            if not more:
                raise BrokenError
            data = data + more if data else more
            end = data.find(_END, searched)
            if end < 0 and len(data) > MAX_HEAD:
                break
        if not 0 <= end <= MAX_HEAD:
            raise MalformedError(f"a head of more than {MAX_HEAD} bytes")
        head = parse_head(data[:end])
        data = data[end + len(_END) :]
        if head.status >= _FINAL or head.status == _SWITCHING:
            return head, data


def parse_head(data: bytes) -> Head:
    """Parse a head without the empty line at its end."""
    lines = data.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise MalformedError("no status line")
    headers: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if not colon or name != name.strip():
            raise MalformedError("a header line without a name")
        if headers.setdefault(name, value) != value:
            if name in (b"content-length", b"transfer-encoding"):
                raise MalformedError("headers that contradict each other")
            headers[name] += b", " + value
    connection = headers.get(b"connection", b"").lower()
    keep_alive = b"close" not in connection if match[1] == b"1" else b"keep-alive" in connection
    return Head(int(match[2]), _text(match[3] or b""), headers, keep_alive)


def _text(data: bytes) -> str:
    """The reason of a status: servers write what was raised there, in either encoding."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


class LateFailureError(Exception):
    """The worker failed after its answer began, and wrote the failure's `head` into the body."""

    def __init__(self, head: Head) -> None:
        super().__init__(head.reason)
        self.head = head


class Body(Protocol):
    """Takes what was received, gives what is content. `wanted` is how much to ask for next."""

    done: bool
    excess: bool

    @property
    def wanted(self) -> int:
        """How many bytes to ask for next."""

    def feed(self, data: bytes) -> bytes:
        """The content among these bytes."""

    def end(self) -> bytes:
        """The rest of the content when the stream has ended; raises BrokenError if that isn't the body's end."""


class SizedBody:
    """A body with a Content-Length."""

    __slots__ = ("_left", "done", "excess", "length")

    def __init__(self, length: int) -> None:
        self.length = length
        self._left = length
        self.done = not length
        self.excess = False

    @property
    def wanted(self) -> int:
        """Never more than belongs to the body."""
        return min(self._left, MAX_READ)

    def feed(self, data: bytes) -> bytes:
        """The data itself, except where more came than belongs to it."""
        if len(data) > self._left:
            self.excess = True
            data = data[: self._left]
        self._left -= len(data)
        self.done = not self._left
        return data

    def end(self) -> bytes:
        """Too early."""
        raise BrokenError


class ChunkedBody:
    """A body in chunks. Large chunks pass through uncopied, small ones are joined."""

    __slots__ = ("_buffer", "_expects", "_left", "done", "excess")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # of the chunk under way
        self._expects = self._size
        self.done = False
        self.excess = False

    @property
    def wanted(self) -> int:
        """The rest of a large chunk alone, so that it need not be cut out."""
        return min(self._left, MAX_READ) if self._left >= READ else READ

    def feed(self, data: bytes) -> bytes:
        """The content of the chunks among the data."""
        if len(data) < self._left:
            self._left -= len(data)
            return data
        data = self._buffer + data if self._buffer else data
        pieces: list[bytes] = []
        at = 0
        while not self.done:
            if self._left:
                pieces.append(data[at : at + self._left])
                at += len(pieces[-1])
                self._left -= len(pieces[-1])
            line_end = -1 if self._left else data.find(b"\r\n", at)
            if line_end < 0:
                break
            self._expects(data[at:line_end])
            at = line_end + 2
        self._buffer = data[at:]
        self.excess = self.done and bool(self._buffer)
        if len(self._buffer) > MAX_HEAD and not self.done:
            raise MalformedError("an endless line between chunks")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def end(self) -> bytes:
        """Too early."""
        raise BrokenError

    def _size(self, line: bytes) -> None:
        match = _CHUNK_SIZE.match(line)
        if match is None:
            raise MalformedError("a chunk without a size")
        self._left = int(match[0], 16)
        self._expects = self._line_break if self._left else self._trailer

    def _line_break(self, line: bytes) -> None:
        if line:
            raise MalformedError("a chunk longer than its size")
        self._expects = self._size

    def _trailer(self, line: bytes) -> None:
        self.done = not line


class UnsizedBody:
    """A body that ends with the connection, as HTTP/1.0 has it.

    Python's own HTTP server, and AIStore's threaded worker on it, write a second answer into such a body when they
    fail after its head: so the last of it is held back until the end, and looked through.
    """

    __slots__ = ("_answered", "_tail", "done", "excess")

    def __init__(self, answered: Mapping[bytes, bytes]) -> None:
        self._answered = answered
        self._tail = b""
        self.done = False
        self.excess = True  # the connection ends with it

    @property
    def wanted(self) -> int:
        """As much as there is."""
        return MAX_READ

    def feed(self, data: bytes) -> bytes:
        """All but the last of it."""
        self._tail += data
        ready = max(0, len(self._tail) - _HELD)
        content, self._tail = self._tail[:ready], self._tail[ready:]
        return content

    def end(self) -> bytes:
        """The last of it; raises LateFailureError."""
        self.done = True
        for match in _LATE_ANSWER.finditer(self._tail):
            self._judge(match[0][: -len(_END)], len(self._tail) - match.end())
        return self._tail

    def _judge(self, data: bytes, follows: int) -> None:
        """Whether it is an answer of the same server, made since, and reaches to the end: then no content."""
        try:
            late = parse_head(data)
            made, before = (_date(headers) for headers in (late.headers, self._answered))
            same = late.headers[b"server"] == self._answered[b"server"] and made >= before
            whole = _length(late.headers[b"content-length"]) == follows
        except (MalformedError, KeyError, ValueError, TypeError):  # also a date without a zone beside one with
            return
        if same and whole:
            raise LateFailureError(late)


def _date(headers: Mapping[bytes, bytes]) -> datetime:
    return parsedate_to_datetime(headers[b"date"].decode("ascii"))


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        raise MalformedError("a Content-Length that is no number")
    return int(value)
