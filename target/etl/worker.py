"""The worker process: loads the plugins once, then runs one transformer at a time for the process that started it.

Started as `python -m transom.target.etl.worker SOCKET_FD LIFELINE_FD SCRATCH`; not for use by hand.
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
    sock_fd, lifeline_fd, scratch = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    threading.Thread(target=_end_with_parent, args=(lifeline_fd,), daemon=True).start()
    transformers = load()
    channel = Channel(socket.socket(fileno=sock_fd))
    channel.send(b"H")
    while True:
        try:
            kind, payload = channel.receive()
        except EOFError:
            return
        if kind == b"J":  # anything else is what the object before left unread
            _serve(channel, transformers, scratch, json.loads(payload))


def _serve(channel: Channel, transformers: Transformers, scratch: Path, task: dict[str, Any]) -> None:
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
                    channel.send(b"D", piece[start : start + _FRAME])
    except (EOFError, ConnectionError):
        os._exit(0)  # the parent no longer wants it
    except (Skip, Reject) as error:
        _fail(channel, "skip" if isinstance(error, Skip) else "reject", str(error))
    except TimeoutError as error:  # of the deadline that it was told, or of anything else: the target knows
        _fail(channel, "timeout", f"{type(error).__name__}: {error}")
    except BaseException as error:  # whatever a transformer raises is its failure, not the worker's end
        _fail(channel, "failed", f"{type(error).__name__}: {error}")
    else:
        channel.send(b"E")


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
            channel.send(b"R")
        kind, payload = channel.receive()
        if kind == b"E":
            return
        yield payload


def _fail(channel: Channel, kind: str, message: str) -> None:
    channel.send(b"X", json.dumps({"kind": kind, "message": message}).encode())


def _end_with_parent(lifeline_fd: int) -> None:
    os.read(lifeline_fd, 1)  # ends only when the last writer, our parent, is gone
    os._exit(0)


if __name__ == "__main__":
    main()
