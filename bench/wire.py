"""One HTTP/1.1 connection of the load generator: requests out as ready bytes, answers parsed no further than needed.

Bodies land in a buffer shared by all connections of a process and are counted, or compared byte by byte, in place.
It knows nothing of S3 beyond keeping the start of an error body; who sends what next is the caller's affair.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

KIB = 1024
BUFFER_SIZE = 512 * KIB
ERROR_BODY_LIMIT = 4 * KIB
HEAD_LIMIT = 64 * KIB
CRLF = b"\r\n"
FINAL, REDIRECTS = 200, 300  # the first status that is no interim answer, and that is no success


@dataclass(frozen=True, slots=True)
class Expected:
    """The bytes an answer must have: `length` bytes of `pool` from `start`."""

    pool: bytes
    start: int
    length: int


class BadAnswer(Exception):
    """The peer sent something that is not HTTP/1.1 as this client understands it."""


def _number(text: bytes, base: int = 10) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise BadAnswer(f"not a number: {text[:32]!r}") from None


class Wire(asyncio.BufferedProtocol):
    """One connection. After `send`, `answered(wire)` is called once: with `failure` empty and the answer's facts in
    the attributes, or with `failure` naming what broke the connection. `reusable` tells if `send` may follow."""

    __slots__ = (
        "_answered", "_buffer", "_carry", "_chunked", "_expected", "_head_only", "_keep", "_left", "_step",
        "failure", "finished_s", "first_byte_s", "head", "kept", "matches", "reusable", "size", "started_s", "status",
        "transport",
    )  # fmt: skip

    def __init__(self, buffer: bytearray, answered: Callable[[Wire], None]) -> None:
        self._buffer = buffer
        self._answered = answered
        self._step: Callable[[bytearray, int, int], int] | None = None
        self._carry = b""
        self._expected: Expected | None = None
        self._left = 0
        self._keep = 0
        self._head_only = False
        self._chunked = False
        self.transport: asyncio.Transport | None = None
        self.reusable = False
        self.failure = ""
        self.status = 0
        self.size = 0
        self.matches = True
        self.head = b""
        self.kept = b""
        self.started_s = self.first_byte_s = self.finished_s = 0.0

    # --- requests out -------------------------------------------------------------------------

    def send(
        self,
        head: bytes,
        body: bytes | memoryview | None,
        *,
        expected: Expected | None = None,
        head_only: bool = False,
        started_s: float = 0.0,
    ) -> None:
        """Send a request whose answer, if it is a success, must equal `expected`.

        `started_s` (of `time.perf_counter()`) is when the caller wanted it sent, where that was before a connect.
        """
        assert self.transport is not None and self._step is None
        self._expected = expected
        self._head_only = head_only
        self._keep = 0
        self._step = self._read_head
        self.failure = ""
        self.matches = True
        self.reusable = False
        self.status = 0
        self.started_s = started_s or time.perf_counter()
        if body is None:
            self.transport.write(head)
        else:
            self.transport.writelines((head, body))

    @property
    def succeeded(self) -> bool:
        """The answer came whole and says 2xx."""
        return not self.failure and self.status < REDIRECTS

    @property
    def busy(self) -> bool:
        """A request is out and its answer has not ended."""
        return self._step is not None

    def fail(self, reason: str) -> None:
        """End the request under way, if any, as failed, and the connection with it."""
        if self.transport is not None:
            self.transport.abort()
        self._end(reason)

    def close(self) -> None:
        """Close the connection; nothing may be under way."""
        self.reusable = False
        if self.transport is not None:
            self.transport.close()

    def header(self, name: bytes) -> bytes:
        """The value of the answer's header `name` (lower case), or empty."""
        at = self.head.find(b"\r\n" + name + b":")
        if at < 0:
            return b""
        start = at + len(name) + 3
        stop = self.head.find(b"\r\n", start)
        return self.head[start : stop if stop >= 0 else None].strip()

    # --- asyncio.BufferedProtocol -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; the connection is now reusable."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class is none, but behaves as one
        self.reusable = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way, if there is one."""
        self.transport = None
        self.reusable = False
        self._end(type(exc).__name__ if exc is not None else "ConnectionClosed")

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - as the loop calls it
        """Lend the shared buffer: what arrives is consumed before any other connection reads."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Consume what arrived."""
        data, count = self._buffer, nbytes
        if self._carry:
            data = bytearray(self._carry + data[:count])
            count = len(data)
            self._carry = b""
        try:
            self._consume(data, count)
        except BadAnswer as error:
            self.fail(f"BadAnswer: {error}")

    def eof_received(self) -> bool:
        """The end of a body that is delimited by the connection's end; otherwise `connection_lost` tells."""
        if self._step is not None and self._step.__func__ is Wire._read_to_end:  # type: ignore[attr-defined]
            self._finish()
        return False

    # --- answers in ---------------------------------------------------------------------------

    def _consume(self, data: bytearray, count: int) -> None:
        at = 0
        while at < count:
            step = self._step
            if step is None:
                raise BadAnswer("bytes after the end of the answer")
            reached = step(data, at, count)
            if reached < 0:  # incomplete: wait for more
                self._carry = bytes(data[at:count])
                return
            at = reached

    def _read_head(self, data: bytearray, at: int, count: int) -> int:
        stop = data.find(b"\r\n\r\n", at, count)
        if stop < 0:
            if count - at > HEAD_LIMIT:
                raise BadAnswer("endless header")
            return -1
        head = bytes(data[at:stop]).lower()
        if not head.startswith(b"http/1."):
            raise BadAnswer("not HTTP/1")
        status = _number(head[9:12])
        if status >= FINAL:
            self._begin(head, status)
        return stop + 4

    def _begin(self, head: bytes, status: int) -> None:
        """Take in a final answer's head and choose how its body is read."""
        self.first_byte_s = time.perf_counter()
        self.head = head
        self.status = status
        self.size = 0
        self.matches = True
        self.kept = b""
        if status >= REDIRECTS:
            self._keep = ERROR_BODY_LIMIT
            self._expected = None
        self.reusable = self._stays_open(head)
        self._chunked = False
        if self._head_only or status in (204, 304):
            self._finish()
            return
        length = self.header(b"content-length")
        if length:
            self._left = _number(length)
            self._step = self._read_sized
            if not self._left:
                self._finish()
        elif self.header(b"transfer-encoding").endswith(b"chunked"):
            self._chunked = True
            self._step = self._read_chunk_size
        else:
            self.reusable = False
            self._step = self._read_to_end

    def _stays_open(self, head: bytes) -> bool:
        if b"\r\nconnection:" in head:
            return b"keep-alive" in self.header(b"connection") or (
                head.startswith(b"http/1.1") and b"close" not in self.header(b"connection")
            )
        return head.startswith(b"http/1.1")

    def _read_sized(self, data: bytearray, at: int, count: int) -> int:
        stop = min(count, at + self._left)
        self._left -= stop - at
        self._take(data, at, stop)
        if not self._left:
            if self._chunked:
                self._step = self._read_chunk_end
            else:
                self._finish()
        return stop

    def _read_to_end(self, data: bytearray, at: int, count: int) -> int:
        self._take(data, at, count)
        return count

    def _read_chunk_size(self, data: bytearray, at: int, count: int) -> int:
        stop = data.find(b"\r\n", at, count)
        if stop < 0:
            if count - at > ERROR_BODY_LIMIT:
                raise BadAnswer("endless chunk size")
            return -1
        self._left = _number(bytes(data[at:stop]).split(b";")[0], 16)
        self._step = self._read_sized if self._left else self._read_trailer
        return stop + 2

    def _read_chunk_end(self, data: bytearray, at: int, count: int) -> int:
        if count - at < len(CRLF):
            return -1
        if not data.startswith(CRLF, at):
            raise BadAnswer("a chunk without its end")
        self._step = self._read_chunk_size
        return at + 2

    def _read_trailer(self, data: bytearray, at: int, count: int) -> int:
        stop = data.find(b"\r\n", at, count)
        if stop < 0:
            if count - at > HEAD_LIMIT:
                raise BadAnswer("endless trailer")
            return -1
        if stop == at:
            self._finish()
        return stop + 2

    def _take(self, data: bytearray, at: int, stop: int) -> None:
        """Count, compare or keep body bytes [at, stop) of `data`."""
        expected = self._expected
        if expected is not None and self.matches:
            with memoryview(data) as view, view[at:stop] as piece:
                self.matches = self.size + stop - at <= expected.length and expected.pool.startswith(
                    piece, expected.start + self.size
                )
        self.size += stop - at
        if self._keep > len(self.kept):
            self.kept += bytes(data[at : min(stop, at + self._keep - len(self.kept))])

    def _finish(self) -> None:
        if self._expected is not None and self.size != self._expected.length:
            self.matches = False
        if self.transport is None or self.transport.get_write_buffer_size():
            self.reusable = False  # answered before the whole request was out
        self._end("")

    def _end(self, failure: str) -> None:
        if self._step is None:
            return
        self._step = None
        self._carry = b""
        self.failure = failure
        if failure:
            self.reusable = False
        self.finished_s = time.perf_counter()
        self._answered(self)
