"""Takes objects in frames on one file descriptor and answers on another: the persistent kind of `io`.

A frame is a kind (one byte), the payload's length (four bytes, big-endian), and the payload. docs/reference/
worker-contract.md says what the kinds mean.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from transom.worker.contract import Context
from transom.worker.errors import Failure, Gone, Refused
from transom.worker.holding import held
from transom.worker.jobs import Jobs, deadline
from transom.worker.reading import PIECE
from transom.worker.settings import Settings
from transom.worker.shapes import Source, Transform

_HEAD = struct.Struct("!cI")
_BUFFER = 128 * 1024  # a small object arrives in one call, with its task
_COPIED = 64 * 1024
_END = _HEAD.pack(b"E", 0)


def taken_streams() -> tuple[int, int]:
    """Take standard input and output away from whatever else runs here, and return them.

    From then on what is printed goes to standard error, and there is nothing to read.
    """
    sys.stdout.flush()
    streams = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return streams


def talk(streams: tuple[int, int], transform: Transform, settings: Settings) -> None:
    """Serve objects until the input ends. Closes both streams."""
    jobs = Jobs(transform, settings)
    with _Line(*streams) as line:
        try:
            line.send(b"H")
            while True:
                kind, payload = line.receive()
                if kind == b"J":  # anything else is what the object before left unread
                    _serve(line, jobs, json.loads(payload))
        except Gone:
            return


def _serve(line: _Line, jobs: Jobs, task: dict[str, Any]) -> None:
    given = _Given(line, task)
    try:
        path = jobs.file(task["path"]) if task.get("path") else ""
        context = _context(task, jobs.settings.etl, path)
        source = Source(path=path) if path else Source(given)
        jobs.run(source, context, _Sink(line, source.in_hand))
    except Failure as failure:
        line.fail(failure.kind, failure.message)
    except Refused as error:
        line.fail("failed", error.message)


class _Line:
    """Both streams, in frames. Raises Gone when the other end has left."""

    def __init__(self, given: int, answers: int) -> None:
        self._given = os.fdopen(given, "rb", buffering=_BUFFER)
        self._answers = answers

    def receive(self) -> tuple[bytes, bytes]:
        kind, length = _HEAD.unpack(self._exactly(_HEAD.size))
        return kind, self._exactly(length) if length else b""

    def send(self, kind: bytes, payload: bytes = b"", then: bytes = b"") -> None:
        """Send one frame, and `then`."""
        head = _HEAD.pack(kind, len(payload))
        if len(payload) <= _COPIED:
            self._write(head + payload + then)
        else:
            self._write(head)
            self._write(payload)
            if then:
                self._write(then)

    def fail(self, kind: str, message: str) -> None:
        self.send(b"X", json.dumps({"kind": kind, "message": message}).encode())

    def _exactly(self, length: int) -> bytes:
        data = self._given.read(length)
        if len(data) < length:
            raise Gone
        return data

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._answers, view) :]
        except OSError as error:
            raise Gone from error

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._given.close()
        os.close(self._answers)


class _Given:
    """One object's input, an `Input`: asked for piece by piece, unless the task says that it follows unasked."""

    def __init__(self, line: _Line, task: dict[str, Any]) -> None:
        self.size: int | None = task.get("size")
        self.broken = False
        self._line = line
        self.in_hand = bool(task.get("whole"))
        self._ended = False

    def read(self) -> bytes:
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        while not self._ended:
            try:
                if not self.in_hand:
                    self._line.send(b"R")
                kind, payload = self._line.receive()
            except Gone:
                self.broken = True
                raise
            if kind == b"E":
                self._ended = True
            else:
                yield payload


class _Sink:
    """One result, in frames of up to 1 MiB, and the frame that ends it."""

    def __init__(self, line: _Line, in_hand: bool) -> None:
        self._line = line
        self._in_hand = in_hand

    def whole(self, data: bytes) -> None:
        if 0 < len(data) <= PIECE:
            self._line.send(b"D", data, then=_END)
        else:
            self._cut(data)
            self._line.send(b"E")

    def pieces(self, pieces: Iterator[bytes]) -> None:
        first, complete = held(pieces, self._in_hand)
        if complete:
            self.whole(first)
            return
        self._cut(first)
        for piece in pieces:
            self._cut(piece)
        self._line.send(b"E")

    def file(self, file: BinaryIO, size: int) -> None:
        while size and (piece := file.read(min(size, PIECE))):
            size -= len(piece)
            self._line.send(b"D", piece)
        if size:
            raise Refused(500, "the file became shorter")
        self._line.send(b"E")

    def _cut(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            self._line.send(b"D", data if len(data) <= PIECE else data[start : start + PIECE])


def _context(task: dict[str, Any], etl: str, path: str) -> Context:
    return Context(
        bucket=task.get("bucket", ""),
        key=task.get("key", ""),
        etl=task.get("etl", etl),
        args_text=task.get("etl_args", ""),
        content_type=task.get("content_type", "binary/octet-stream"),
        size=os.stat(path).st_size if path else task.get("size"),  # noqa: PTH116 - the path stays text
        metadata=task.get("metadata", {}),
        deadline=deadline(task.get("deadline_ms")),
    )
