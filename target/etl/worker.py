"""The worker process: loads the plugins once, then runs one transformer at a time for the process that started it.

Started as `python -m transom.target.etl.worker SOCKET_FD LIFELINE_FD SCRATCH`; not for use by hand.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transom.plugins.contract import Context, Reject, Skip
from transom.plugins.manager import Transformers, load
from transom.plugins.shapes import stream
from transom.target.etl.pipeline import parsed
from transom.target.etl.workers import Channel

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
            _, payload = channel.receive()
        except EOFError:
            return
        _serve(channel, transformers, scratch, json.loads(payload))


def _serve(channel: Channel, transformers: Transformers, scratch: Path, task: dict[str, Any]) -> None:
    try:
        transformer = transformers[task["plugin"]]
        context = _context(task["context"], parsed(transformer, task["given"]))
        pieces = stream(transformer, _input(channel), context, scratch=scratch, max_memory=task["max_memory"])
        for piece in pieces:
            for start in range(0, len(piece), _FRAME):
                channel.send(b"D", piece[start : start + _FRAME])
    except (EOFError, ConnectionError):
        os._exit(0)  # the parent no longer wants it
    except (Skip, Reject) as error:
        _fail(channel, "skip" if isinstance(error, Skip) else "reject", str(error))
    except BaseException as error:  # whatever a transformer raises is its failure, not the worker's end
        _fail(channel, "failed", f"{type(error).__name__}: {error}")
    else:
        channel.send(b"E")


def _context(fields: dict[str, Any], args: object) -> Context:
    deadline = float("inf") if fields["deadline"] is None else fields["deadline"]
    return Context(**{**fields, "args": args, "deadline": deadline})


def _input(channel: Channel) -> Iterator[bytes]:
    while True:
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
