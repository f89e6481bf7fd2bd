"""Waits until the process is told to end. It knows nothing of what is to be ended."""

from __future__ import annotations

import os
import signal
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Ending:
    """Takes SIGTERM and SIGINT, in the main thread: before `wait` they end the process at once, with SystemExit."""

    def __init__(self) -> None:
        self._asked = False
        self._waiting = False
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        for number in _SIGNALS:
            signal.signal(number, self._take)

    def wait(self) -> None:
        """Return once the process is told to end.

        A lock would do to wait on, were it not that a signal which comes just before the wait doesn't end it.
        """
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._waiting = True
        while not self._asked:
            if any(number in _SIGNALS for number in os.read(self._woken, 64)):
                return

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
        if not self._waiting:
            raise SystemExit(0)
