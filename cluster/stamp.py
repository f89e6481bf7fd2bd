"""A change stamp that processes share: eight bytes of a mapped file, read in a fraction of a microsecond.

Whoever changes what others remember renews the stamp; whoever remembers compares. A process killed between its change
and the renewal is why a memory is also bounded in age.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

_SIZE = 8
MAX_AGE_S = 0.5


class Stamp:
    """One stamp. `fresh` answers for the memory of this instance's owner."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size < _SIZE:
                os.posix_fallocate(fd, 0, _SIZE)  # a mapped page without room on the disk would kill the process
            self._map = mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)
        self._seen = b""
        self._until = 0.0

    def fresh(self) -> bool:
        """Whether what was remembered at the last `note` still holds."""
        return self._map[:_SIZE] == self._seen and time.monotonic() < self._until

    def look(self) -> bytes:
        """The stamp as it is, for `note`."""
        return self._map[:_SIZE]

    def note(self, at: bytes | None = None) -> None:
        """Remember the stamp; call it before reading what is to be remembered.

        Where several threads share the memory, call it after, with what `look` said before: until then they wait.
        """
        self._seen = self.look() if at is None else at
        self._until = time.monotonic() + MAX_AGE_S

    def renew(self) -> None:
        """Tell everybody that something changed. Random, so that two at once can't cancel out."""
        self._map[:_SIZE] = os.urandom(_SIZE)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()
