"""The worker process: loads the plugins once, then runs one transformer at a time for the process that started it.

Started as `python -m transom.target.etl.worker SOCKET_FD LIFELINE_FD SCRATCH MAX_GROWTH`; not for use by hand. Whether
it has grown too large it says when a run ends; that it is then ended is the other side's to do.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transom.plugins.contract import Context, Reject, Skip
from transom.plugins.manager import Transformers, load
from transom.plugins.nested import memory_limit
from transom.plugins.shapes import stream
from transom.target.etl.pipeline import parsed
from transom.target.etl.transports.channel import Channel

_FRAME = 1024 * 1024


def main() -> None:
    """Serve tasks until the parent lets go of the socket."""
    sock_fd, lifeline_fd, scratch, max_growth = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    threading.Thread(target=_end_with_parent, args=(lifeline_fd,), daemon=True).start()
    transformers = load()
    channel = Channel(socket.socket(fileno=sock_fd))
    growth = Growth(max_growth)
    channel.send(b"H")
    while True:
        try:
            kind, payload = channel.receive()
        except EOFError:
            return
        if kind == b"J":  # anything else is what the object before left unread
            task = json.loads(payload)
            refusal = _serve(channel, transformers, scratch, task)
            # looked at only now that what the run had in its hands is let go of
            _end(channel, refusal, outgrown=growth.is_too_much(task["plugin"]))


class Growth:
    """How much more memory the process holds after a run than it began with, which `limit` bounds, in bytes.

    What the first run of each transformer leaves is no growth: libraries and models are loaded in it, and a worker that
    was replaced for them would load them again for every object.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._began = self._last = resident_bytes()
        self._ran: set[str] = set()

    def is_too_much(self, plugin: str) -> bool:
        """Look after a run of this transformer; costs some ten microseconds."""
        now = resident_bytes()
        if plugin not in self._ran:
            self._ran.add(plugin)
            self._began += max(0, now - self._last)
        self._last = now
        return now - self._began > self._limit


def resident_bytes() -> int:
    """The process's memory as it is now; what it once was, as `getrusage` has it, would tell of large objects."""
    with open("/proc/self/statm", "rb", buffering=0) as file:  # noqa: PTH123 - after every run: half of Path.read_bytes
        return int(file.read().split()[1]) * resource.getpagesize()


def _serve(channel: Channel, transformers: Transformers, scratch: Path, task: dict[str, Any]) -> dict[str, str] | None:
    """Send what comes of one object; returns why there is no more of it, where it failed."""
    try:
        transformer = transformers[task["plugin"]]
        told = task["context"]
        context = Context(
            **{**told, "deadline": float("inf") if told["deadline"] is None else told["deadline"]},
            args=parsed(transformer, task["given"]),
            transformers=transformers,
            scratch=scratch,
        )
        given = _input(channel, asks=not task["whole"])
        pieces = stream(transformer, given, context, scratch=scratch, max_memory=task["max_memory"])
        with _bounded_memory(memory_limit(transformers, transformer, context.args)):
            for piece in pieces:
                for start in range(0, len(piece), _FRAME):
                    _send(channel, b"D", piece[start : start + _FRAME])
    except (Skip, Reject) as error:
        return {"kind": "skip" if isinstance(error, Skip) else "reject", "message": str(error)}
    except TimeoutError as error:  # of the deadline that it was told, or of anything else: the target knows
        return {"kind": "timeout", "message": f"{type(error).__name__}: {error}"}
    except MemoryError as error:
        return {"kind": "memory", "message": f"out of memory: {error}" if str(error) else "out of memory"}
    except BaseException as error:  # whatever a transformer raises is its failure, not the worker's end
        return {"kind": "failed", "message": f"{type(error).__name__}: {error}"}
    return None


@contextmanager
def _bounded_memory(limit: int | None) -> Iterator[None]:
    """Let the process grow by so many bytes: what is asked for beyond is refused, which a library can report."""
    if limit is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + limit
    resource.setrlimit(resource.RLIMIT_AS, (bound if soft == resource.RLIM_INFINITY else min(bound, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _input(channel: Channel, *, asks: bool) -> Iterator[bytes]:
    while True:
        if asks:
            _send(channel, b"R")
        try:
            kind, payload = channel.receive()
        except (EOFError, ConnectionError):
            os._exit(0)
        if kind == b"E":
            return
        yield payload


def _send(channel: Channel, kind: bytes, payload: bytes = b"") -> None:
    """Send a frame; where the parent no longer wants any, end. Errors like that of a transformer are its own."""
    try:
        channel.send(kind, payload)
    except ConnectionError:
        os._exit(0)


def _end(channel: Channel, refusal: dict[str, str] | None, *, outgrown: bool) -> None:
    if refusal is None:
        _send(channel, b"E", b"outgrown" if outgrown else b"")
    else:
        _send(channel, b"X", json.dumps({**refusal, "outgrown": outgrown}).encode())


def _end_with_parent(lifeline_fd: int) -> None:
    os.read(lifeline_fd, 1)  # ends only when the last writer, our parent, is gone
    os._exit(0)


if __name__ == "__main__":
    main()
