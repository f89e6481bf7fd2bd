"""Waits for the end of a container's first process by the kernel's word, where it is a process of this machine.

Engines can be asked to tell the end of a container, but Podman does so by looking all the time, with most of a core.
"""

from __future__ import annotations

import os
import select
import time

from transom.target.etl.runtimes.namespaces import is_container

_LOOK_MS = 10_000
_LOOK_S = 1.0
_SOON_S = 0.02


class FirstProcess:
    """The first process of a container. For one thread."""

    def __init__(self, pid: int, container: str) -> None:
        """Watch process `pid`, if it is in the container of that id as far as this machine can see."""
        self._fd = _opened(pid, container)
        self._pause_s = _LOOK_S if self._fd < 0 else _SOON_S

    def wait(self) -> None:
        """Return at its end, or after a while: whoever waits is to ask the engine then.

        Where nothing can be watched it is a second. After the end it is ever longer: the engine takes a moment to know.
        """
        if self._fd >= 0:
            poller = select.poll()
            poller.register(self._fd, select.POLLIN)
            if not poller.poll(_LOOK_MS):
                return
            self.close()
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LOOK_S)

    def close(self) -> None:
        """Watch no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _opened(pid: int, container: str) -> int:
    try:
        fd = os.pidfd_open(pid)
    except (OSError, ValueError):  # it has ended, or the engine has no number for it
        return -1
    if is_container(pid, container):  # asked once it is held: no other process can have its number now
        return fd
    os.close(fd)
    return -1
