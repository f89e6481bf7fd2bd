"""The hold of one `transom serve` on its data folder: two supervisors would overwrite each other's cluster map.

The kernel lets go of it when the supervisor and every process it started are gone, however they ended.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from transom.gateway.config import ConfigError

_PAUSE_S = 0.05


class FolderHold:
    """An exclusive lock on a data folder. Processes that inherit `fd` keep it too."""

    def __init__(self, path: Path, *, patience_s: float = 3.0) -> None:
        """Wait up to `patience_s` for processes of a killed supervisor to go. Raises ConfigError."""
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_up = time.monotonic() + patience_s
        while not self._taken():
            if time.monotonic() > give_up:
                holder = os.pread(self.fd, 32, 0).decode(errors="replace").strip()
                os.close(self.fd)
                raise ConfigError(
                    f"the data folder {path.parent} is in use by another transom serve (pid {holder}): "
                    "stop it, or give this one a folder of its own"
                )
            time.sleep(_PAUSE_S)
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let go; processes that inherited it still hold it until they end."""
        os.close(self.fd)
