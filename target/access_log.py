"""The log line of a request: the same JSON as every other line, but written without a logger's stages.

It is on the path of every request, where a general logger costs as much as reading a small object.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial

import orjson

Write = Callable[[bytes], object]


class AccessLog:
    """Writes one line a request; `enabled` is False where the level leaves them out."""

    def __init__(self, *, enabled: bool = True, write: Write | None = None) -> None:
        self.enabled = enabled
        self._write = write or partial(os.write, sys.stderr.fileno())

    def request(self, started: float, **fields: object) -> None:
        """Log a request that began at `started` (seconds of `time.perf_counter`)."""
        if self.enabled:
            fields["ms"] = round((time.perf_counter() - started) * 1000, 2)
            fields["event"] = "request"
            fields["level"] = "info"
            fields["timestamp"] = timestamp()
            with suppress(OSError):  # a log that can't be written, on a full disk, is no reason to fail a request
                self._write(orjson.dumps(fields, default=str, option=orjson.OPT_APPEND_NEWLINE))


def new_request_id() -> str:
    """Another request's id: no secret, so the kernel isn't asked for randomness every time."""
    return f"{random.getrandbits(64):016X}"


def timestamp() -> str:
    """The time now, in UTC, as the log has it."""
    now = time.time()
    return f"{_second(int(now))}.{int(now % 1 * 1000):03d}Z"


@lru_cache(maxsize=2)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
