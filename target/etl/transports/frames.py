"""Speaks with a program that takes one object after another, in frames on its standard input and output.

docs/reference/worker-contract.md describes the frames for those who write the other end. It starts, ends and explains
no process: whoever started the program kills it once `idle` is false after a run.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import chain

from transom.plugins.contract import Reject, Skip
from transom.target.errors import EtlFailed
from transom.target.etl.transports.base import Call
from transom.target.etl.transports.channel import Channel, framed
from transom.target.etl.transports.told import left_ms
from transom.target.etl.watch import Watch

WHOLE_SIZE = 128 * 1024  # an input up to this goes out with its task: it fits the socket's buffer, so nobody waits
_BUFFER = 1024 * 1024  # asked for; Linux gives 416 KiB unless told otherwise
_PIECE = 1024 * 1024
_MESSAGE_LENGTH = 1000


class RefusedError(Exception):
    """The program's X frame came in a result's place; `payload` is what it says."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self.payload = payload


class FramedProgram:
    """This end of a program's standard input and output, which are one socket. Not for two threads at once."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over `sock`, our end of the pair whose other end the program reads and writes."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self.idle = False  # whether it waits for an object: only then can it be used again
        self._channel = Channel(sock, lambda: None)

    def is_quiet(self) -> bool:
        """Whether it says nothing, as one that waits for an object; one that has closed its output isn't."""
        return self._channel.is_quiet()

    def greet(self, timeout_s: float, check: Callable[[], None] | None = None) -> None:
        """Wait until the program says hello; raises TimeoutError, and what `exchange` raises for one that is gone.

        `check` is called meanwhile, and what it raises passes through.
        """
        end = time.monotonic() + timeout_s

        def look() -> None:
            if check is not None:
                check()
            if time.monotonic() > end:
                raise TimeoutError(f"it did not say hello in {timeout_s:g} s")

        self._channel.look = look
        kind, _ = self._channel.receive()
        if kind != b"H":
            raise _not_a_frame(kind)
        self.idle = True

    def run(self, call: Call, chunks: Iterator[bytes], watch: Watch) -> Generator[bytes, None, None]:
        """Send one object, yield the result as it comes; raises as `exchange`, and Skip, Reject and EtlFailed."""
        try:
            yield from self.exchange(_task(call, watch), iter(()) if call.path else chunks, watch)
        except RefusedError as error:
            raise _refusal(call.etl, error.payload) from None

    def exchange(
        self, task: Mapping[str, object], chunks: Iterator[bytes], watch: Watch
    ) -> Generator[bytes, None, bytes]:
        """Send a task and its input, yield the result as it comes; returns what the frame at its end holds.

        Closed early it leaves the program not `idle`.
        Raises RefusedError, EOFError and ConnectionError when the program is gone or what it sends are no frames,
        what `chunks` raises, and what `watch` has to say.
        """
        channel = self._channel
        self.idle = False
        channel.look = watch.check
        ahead, rest = _ahead(chunks)
        told = framed(b"J", json.dumps({**task, "whole": rest is None}).encode())
        if rest is None:
            told += framed(b"D", ahead) + framed(b"E") if ahead else framed(b"E")
        channel.send_bytes(told)
        while True:
            kind, payload = channel.receive()
            watch.check()
            if kind == b"D":
                yield payload
            elif kind == b"R":
                if rest is not None:  # else its answer went out with the task
                    piece = next(rest, None)
                    channel.send(b"E" if piece is None else b"D", piece or b"")
            elif kind == b"E":
                self.idle = True
                return payload
            elif kind == b"X":
                self.idle = True
                raise RefusedError(payload)
            else:
                raise _not_a_frame(kind)

    def close(self) -> None:
        """Close the socket: a well-behaved idle program ends. From any thread."""
        self._channel.close()


def _ahead(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes] | None]:
    """Return the whole input if it is small; else nothing, and all of it in pieces that fit a frame."""
    head: list[bytes] = []
    size = 0
    for piece in chunks:
        head.append(piece)
        size += len(piece)
        if size > WHOLE_SIZE:
            return b"", _cut(chain(head, chunks))
    return b"".join(head), None


def _cut(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if len(chunk) <= _PIECE:
            yield chunk
        else:
            yield from (chunk[start : start + _PIECE] for start in range(0, len(chunk), _PIECE))


def _task(call: Call, watch: Watch) -> dict[str, object]:
    task: dict[str, object] = {
        "bucket": call.bucket,
        "key": call.key,
        "etl": call.etl,
        "etl_args": call.etl_args,
        "content_type": call.content_type,
        "size": call.size,
        "metadata": dict(call.metadata),
        "deadline_ms": left_ms(watch),
    }
    if call.path:
        task["path"] = call.path
    return task


def _refusal(etl: str, payload: bytes) -> Exception:
    """What the program's X frame means. It is not trusted to hold what it should."""
    try:
        given = json.loads(payload)
        kind, message = str(given["kind"]), str(given["message"])[:_MESSAGE_LENGTH]
    except (ValueError, TypeError, KeyError):
        kind, message = "failed", payload[:_MESSAGE_LENGTH].decode(errors="replace")
    if kind == "skip":
        return Skip(message)
    if kind == "reject":
        return Reject(message)
    return EtlFailed(f"ETL '{etl}' failed: {message}", etl=etl)


def _not_a_frame(kind: bytes) -> ConnectionError:
    return ConnectionError(f"it wrote to its standard output what is no frame: {kind!r}")
