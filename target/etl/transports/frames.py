"""Speaks with a program that takes one object after another, in frames on its standard input and output.

docs/reference/worker-contract.md describes the frames for those who write the other end. It starts, ends and explains
no process: whoever started the program kills it once `idle` is false after a run.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Generator, Iterator
from itertools import chain

from transom.plugins.contract import Reject, Skip
from transom.target.errors import EtlFailed
from transom.target.etl.transports.base import Call
from transom.target.etl.transports.told import left_ms
from transom.target.etl.watch import Watch
from transom.target.etl.workers import Channel, framed

WHOLE_SIZE = 128 * 1024  # an input up to this goes out with its task: it fits the socket's buffer, so nobody waits
_BUFFER = 1024 * 1024  # asked for; Linux gives 416 KiB unless told otherwise
_PIECE = 1024 * 1024
_LOOK_S = 0.25
_MESSAGE_LENGTH = 1000


class FramedProgram:
    """This end of a program's standard input and output, which are one socket. Not for two threads at once."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over `sock`, our end of the pair whose other end is the program's standard input and output."""
        sock.settimeout(_LOOK_S)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self.idle = False  # whether it waits for an object: only then can it be used again
        self._channel = Channel(sock)

    def greet(self, timeout_s: float, check: Callable[[], None] | None = None) -> None:
        """Wait until the program says hello; raises TimeoutError, and what `run` raises for one that is gone.

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
        """Send one object, yield the result as it comes. Closing the generator early leaves the program not `idle`.

        Raises Skip, Reject and EtlFailed as the program says, EOFError and ConnectionError when it is gone or what it
        sends are no frames, what `chunks` raises, and what `watch` has to say.
        """
        channel = self._channel
        self.idle = False
        channel.look = watch.check
        ahead, rest = (b"", None) if call.path else _ahead(chunks)
        task = framed(b"J", _task(call, watch, whole=rest is None))
        if rest is None:
            task += framed(b"D", ahead) + framed(b"E") if ahead else framed(b"E")
        channel.send_bytes(task)
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
                return
            elif kind == b"X":
                self.idle = True
                raise _refusal(call.etl, payload)
            else:
                raise _not_a_frame(kind)

    def close(self) -> None:
        """Close the socket: a well-behaved idle program ends."""
        self._channel.sock.close()


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


def _task(call: Call, watch: Watch, *, whole: bool) -> bytes:
    task: dict[str, object] = {
        "bucket": call.bucket,
        "key": call.key,
        "etl": call.etl,
        "etl_args": call.etl_args,
        "content_type": call.content_type,
        "size": call.size,
        "metadata": dict(call.metadata),
        "deadline_ms": left_ms(watch),
        "whole": whole,
    }
    if call.path:
        task["path"] = call.path
    return json.dumps(task).encode()


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
