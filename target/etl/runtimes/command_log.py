"""Keeps what programs of command ETLs say on standard error, in their ETL's log: several processes write to it.

It knows nothing of what a line means.
"""

from __future__ import annotations

import fcntl
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from transom.target.etl.keeper.logs import MAX_BYTES, LogFile

_LOCK = ".lock"
_NAME_LENGTH = 200


@dataclass(frozen=True, slots=True)
class CommandLog:
    """The logs in one target's folder, two files of `max_bytes` for each ETL. Callable from any thread."""

    folder: Path
    max_bytes: int = MAX_BYTES

    def write(self, etl: str, words: bytes) -> None:
        """Append what a program said. A disk without room loses it: a program's talk is not worth its work."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            # Whoever finds the file full begins another: two at once would lose the one that was begun.
            with (self.folder / _LOCK).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                with closing(LogFile(self.folder / f"{etl}.log", self.max_bytes)) as log:
                    log.write(words)

    def write_about(self, etl: str, bucket: str, key: str, words: str) -> None:
        """Append what a program said of one object, below the object's name; nothing where it said nothing."""
        if words:
            name = "".join(c if c.isprintable() else "?" for c in f"{bucket}/{key}")[:_NAME_LENGTH]
            self.write(etl, f"{name}:\n{words}\n".encode(errors="replace"))
