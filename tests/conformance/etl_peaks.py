"""Watches how much memory processes come to need, by what /proc says."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

_EVERY_S = 0.05
_PEAK_TO_NOW = "5"  # what proc(5) has for clear_refs


class Peaks:
    """Looks again and again while the block runs. `growth` is in bytes, by pid: from the start of the block, or of the
    process, to its peak."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._before: dict[int, int] = {}
        self._peaks: dict[int, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def growth(self) -> dict[int, int]:
        return {pid: peak - self._before.get(pid, 0) for pid, peak in self._peaks.items()}

    def __enter__(self) -> Self:
        for pid in self._pids():
            with contextlib.suppress(OSError):  # without the right, an earlier peak that was higher counts too
                Path(f"/proc/{pid}/clear_refs").write_text(_PEAK_TO_NOW)
            self._before[pid] = _bytes(pid, "VmRSS")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            last = self._over.wait(_EVERY_S)
            for pid in self._pids():
                # the latest, not the highest: one that is just being started has its parent's memory
                self._peaks[pid] = _bytes(pid, "VmHWM") or self._peaks.get(pid, 0)
            if last:
                return


def _bytes(pid: int, name: str) -> int:
    """A field of a process's status; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else 0
