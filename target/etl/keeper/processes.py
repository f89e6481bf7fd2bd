"""Processes by what /proc says of them: what a tree of them uses, and those that a killed keeper left behind."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from transom.target.etl.runtimes.base import MARK, Usage

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PATIENCE_S = 5.0
_PAUSE_S = 0.01


def tree_usage(pid: int) -> Usage | None:
    """What a process and its descendants use, with the CPU time of those that have ended; None if it is gone."""
    fields = _stat(pid)
    if fields is None:
        return None
    cpu_s, memory = sum(int(each) for each in fields[11:15]) / _TICKS, int(fields[21]) * _PAGE
    for child in _children(pid):
        usage = tree_usage(child)
        if usage is not None:
            cpu_s, memory = cpu_s + usage.cpu_s, memory + usage.memory
    return Usage(cpu_s, memory)


def reap(mark: str, supervisor: int) -> int:
    """Kill the processes that carry `mark` and that no server process is the parent of any more; return how many.

    Those below a living process of `supervisor` are its own: a pool's, in use.
    """
    left = {pid for pid in _pids() if _carries(pid, mark) and not _is_owned(pid, mark, supervisor)}
    for pid in left:
        _kill(pid, mark)
    give_up = time.monotonic() + _PATIENCE_S
    while any(_carries(pid, mark) for pid in left) and time.monotonic() < give_up:
        time.sleep(_PAUSE_S)
    return len(left)


def _kill(pid: int, mark: str) -> None:
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            if _carries(pid, mark):  # still: the number may be another's by now
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def _is_owned(pid: int, mark: str, supervisor: int) -> bool:
    """Whether `pid` descends from a process that the supervisor runs now.

    An orphan may have become the supervisor's own child, where that is the machine's first process.
    """
    below = pid
    while (parent := _parent(below)) > 1 and parent != supervisor:
        below = parent
    return parent == supervisor and not _carries(below, mark)


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return 0 if fields is None else int(fields[1])


def _carries(pid: int, mark: str) -> bool:
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:  # it is gone, or somebody else's
        return False
    return f"{MARK}={mark}".encode() in environment.split(b"\0")


def _pids() -> list[int]:
    own = os.getpid()
    return [pid for pid in map(int, filter(str.isdigit, os.listdir(_PROC))) if pid != own]  # noqa: PTH208 - names


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields of its stat after the name, from the state on; None for no such process."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
