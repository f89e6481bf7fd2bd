"""Runs one object at a time through what the author wrote, within the worker's bounds, however the object came.

It knows nothing of HTTP, WebSockets or frames.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO

from transom.worker.contract import Context
from transom.worker.errors import Gone, OutputTooLarge, Refused, explain
from transom.worker.settings import Settings
from transom.worker.shapes import Sink, Source, Transform


class Jobs:
    """What it takes to run objects. Callable from several threads at once; only so many run, the others wait."""

    def __init__(self, transform: Transform, settings: Settings) -> None:
        self.transform = transform
        self.settings = settings
        self._slots = threading.BoundedSemaphore(settings.concurrency)

    def run(self, source: Source, context: Context, sink: Sink) -> None:
        """Run one object. Raises Failure; Gone when either end of it broke; Refused when no slot is free in time."""
        waits_s = min(context.remaining_s(), threading.TIMEOUT_MAX)
        if not self._slots.acquire(timeout=max(0.0, waits_s)):
            raise Refused(503, "the worker is busy", retry=True)
        try:
            if self.settings.max_output:
                sink = _Bounded(sink, self.settings.max_output)
            self.transform.run(source, context, sink)
        except (Gone, Refused):
            raise
        except BaseException as error:  # whatever an author's code raises is its failure, not the worker's end
            if source.broken:
                raise Gone from error
            raise explain(error) from None
        finally:
            self._slots.release()

    def file(self, path: str) -> str:
        """Return the file that a request names, if it may be read; raises Refused."""
        root = self.settings.direct_root
        real = os.path.realpath(path)
        if not root or not real.startswith(root.rstrip("/") + "/"):
            raise Refused(403, "this worker may not read that file")
        if not os.path.isfile(real):  # noqa: PTH113 - the path stays text all the way
            raise Refused(404, "the file is not there")
        return real


def deadline(milliseconds: int | None) -> float:
    """Return the moment that is so many milliseconds away, in seconds of `time.monotonic()`."""
    return float("inf") if milliseconds is None else time.monotonic() + milliseconds / 1000


class _Bounded:
    """A sink that takes no more than so many bytes."""

    def __init__(self, sink: Sink, limit: int) -> None:
        self._sink = sink
        self._limit = limit

    def whole(self, data: bytes) -> None:
        self._look(len(data))
        self._sink.whole(data)

    def pieces(self, pieces: Iterator[bytes]) -> None:
        self._sink.pieces(self._counted(pieces))

    def file(self, file: BinaryIO, size: int) -> None:
        self._look(size)
        self._sink.file(file, size)

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        total = 0
        for piece in pieces:
            total += len(piece)
            self._look(total)
            yield piece

    def _look(self, size: int) -> None:
        if size > self._limit:
            raise OutputTooLarge(f"it made more than {self._limit} bytes")
