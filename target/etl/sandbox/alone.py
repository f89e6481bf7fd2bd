"""Writes how a program is started that confines itself by Landlock, seccomp and rlimits: no namespaces around it.

It has no file system of its own: it can't read what it isn't given, but can tell whether a path exists. It may listen
on a unix socket; where root starts it, it is nobody, and the way to all that it is given must be open to everybody.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import transom
from transom.target.etl.sandbox import landlock, seccomp, system
from transom.target.etl.sandbox.program import SCRATCH, Program
from transom.target.etl.sandbox.ways import Start, Surroundings, in_memory

_SOURCE = Path(transom.__file__).parent.parent
_START = (
    f"import sys; sys.path.insert(0, {str(_SOURCE)!r}); from transom.target.etl.sandbox import confine; confine.main()"
)
_LEAST_ABI = 3  # Linux 6.2
_NAMES = tuple(Path("/etc") / name for name in ("passwd", "group", "nsswitch.conf"))
_PROC = ("self", "cpuinfo", "meminfo", "stat", "uptime", "loadavg")


@dataclass(frozen=True, slots=True)
class Alone:
    """The way of a program that confines itself."""

    beside: ClassVar[int] = 0
    steps_down: ClassVar[bool] = True
    shares_files: ClassVar[bool] = True

    def __str__(self) -> str:
        return "Landlock"

    def start_of(self, program: Program, surroundings: Surroundings) -> Start:
        """How to start a program. Raises ValueError for one that would see what is hidden."""
        shown = [*system.FOLDERS, *system.files(network=program.network), *system.python(), *_NAMES]
        for hidden in surroundings.hidden:
            within = next((path for path in shown if hidden.is_relative_to(path)), None)
            if within:
                raise ValueError(
                    f"{hidden} is in {within}, which every program may read, and Landlock can't hide a part"
                )
        fd = in_memory(_task(program, [*shown, *program.read], surroundings))
        return Start([sys.executable, "-I", "-S", "-c", _START, str(fd)], (fd,))


def missing() -> str:
    """What this machine lacks for it; empty when nothing."""
    if not seccomp.supported():
        return f"the system calls of {platform.machine()} are not known"
    version = landlock.abi()
    if not version:
        return "the kernel has no Landlock, or it is switched off"
    # Before, it let everybody truncate files.
    return "" if version >= _LEAST_ABI else f"the kernel's Landlock is too old (ABI {version}; it takes {_LEAST_ABI})"


def _task(program: Program, read: Iterable[Path], surroundings: Surroundings) -> bytes:
    limits, scratch, by_root = program.limits, str(surroundings.scratch), os.getuid() == 0
    bounds = {"memory": limits.memory, "pids": limits.pids, "output": limits.output, "files": limits.files}
    task = {
        "argv": program.argv,
        "env": {**program.environment(scratch), **surroundings.marks},
        "read": [*map(str, read), *(f"/proc/{name}" for name in _PROC)],
        "write": [scratch, *map(str, program.write)],
        "devices": list(map(str, system.DEVICES)),
        "folder": scratch if program.folder == SCRATCH else program.folder,
        "network": program.network,
        "limits": {name: value for name, value in bounds.items() if value and name not in surroundings.counted},
        "doors": list(map(str, surroundings.doors)),
        "user": system.USER if by_root else None,
        "parent": os.getpid(),
        "seccomp": seccomp.alone(
            network=program.network, signals=landlock.abi() >= landlock.SCOPES_ABI, owner=not by_root
        ).hex(),
    }
    return json.dumps(task).encode()
