"""What workers print, in a bounded file for each ETL; and a worker's last words.

It knows nothing of what a line means.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024
_READ = 64 * 1024
_MOST_READS = 64
_REMEMBERED = 4096
_WORDS_LENGTH = 500


class LogFile:
    """One ETL's log: at most `max_bytes`, and as much again in the file it was before (`NAME.log.1`)."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()

    def write(self, data: bytes) -> None:
        """Append what a worker printed. A disk without room loses it: a worker's talk is not worth its work."""
        with suppress(OSError):
            if self._file.tell() + len(data) > self._max_bytes and self._file.tell():
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._open()
            self._file.write(data[-self._max_bytes :])

    def note(self, text: str) -> None:
        """Append a line of the keeper's own."""
        self.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} transom: {text}\n".encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> FileIO:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.fdopen(os.open(self._path, flags, 0o600), "ab", buffering=0)


class Captured:
    """The output of one worker on its way into the log: it writes to `write_fd`."""

    def __init__(self, log: LogFile) -> None:
        """Begin to listen, on the running event loop."""
        self._log = log
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._end = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read_fd, self._take)

    @property
    def words(self) -> str:
        """The end of what the worker printed."""
        self.drain()
        return self._end.decode(errors="replace")

    @property
    def last_words(self) -> str:
        """The last line the worker printed; the last two if that one is short. Empty if it said nothing."""
        lines = [line.strip() for line in self.words.splitlines() if line.strip()]
        if not lines:
            return ""
        short = len(lines[-1]) < len("Segmentation fault!")
        return " / ".join(lines[-2:] if short else lines[-1:])[:_WORDS_LENGTH]

    def forget(self) -> None:
        """Have last words be among what comes from now on."""
        self.drain()
        self._end = b""

    def drain(self) -> None:
        """Take what is there already; of a worker that prints without pause no more than the loop has time for."""
        for _ in range(_MOST_READS):
            if self._read_fd < 0 or not self._take():
                return

    def close(self) -> None:
        """Take what is left and end; safe to call twice."""
        if self._read_fd < 0:
            return
        self._loop.remove_reader(self._read_fd)
        self.drain()
        os.close(self._read_fd)
        os.close(self.write_fd)
        self._read_fd = self.write_fd = -1

    def _take(self) -> bool:
        try:
            data = os.read(self._read_fd, _READ)
        except BlockingIOError:
            return False
        self._end = (self._end + data)[-_REMEMBERED:]
        self._log.write(data)
        return bool(data)
