"""Finds out how programs can be confined here: tries each way, the best first, and believes no other sign."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from transom.target.etl.sandbox import alone, bubblewrap, cgroups
from transom.target.etl.sandbox.cgroups import Home
from transom.target.etl.sandbox.program import Program
from transom.target.etl.sandbox.starting import Starter, Streams
from transom.target.etl.sandbox.ways import Way

_TRIAL = Program(("/bin/cat", "/proc/self/status"))
_TRIAL_S = 20.0
CONFINED = {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0" * 16}


@dataclass(frozen=True, slots=True)
class Found:
    """A way to confine programs, where their control groups can be made, and why better ones can't be had."""

    way: Way | None = None
    home: Home | None = None
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.way is None:
            return f"no sandbox ({'; '.join(self.missing)})"
        return f"{self.way}, {self.home or 'rlimits: memory of each process, no limit of cpu'}"


def look(starter: Starter) -> Found:
    """Look at the machine. Takes some milliseconds."""
    missing: list[str] = []
    homes = [home] if (home := cgroups.find()) else []
    for way in _ways(missing):
        for each in [*homes, None]:
            reason = shortcoming(starter, way, each)
            if not reason:
                return Found(way, each, tuple(missing))
            missing.append(f"{way}{f' with {each}' if each else ''}: {reason}")
    return Found(missing=tuple(missing))


def shortcoming(starter: Starter, way: Way, home: Home | None) -> str:
    """Why a way won't do here; empty when it does."""
    return _unbound(way, home) or _trial(starter, way, home)


def _ways(missing: list[str]) -> Iterator[Way]:
    binary = bubblewrap.find()
    if binary is None:
        missing.append("bubblewrap: no program 'bwrap' was found")
    else:
        yield from bubblewrap.ways(binary)
    lacking = alone.missing()
    if lacking:
        missing.append(f"{alone.Alone()}: {lacking}")
    else:
        yield alone.Alone()


def _unbound(way: Way, home: Home | None) -> str:
    """Why the limits would not hold; empty when they do."""
    if os.getuid() == 0 and not way.steps_down and (home is None or "pids" not in home.folders):
        return "the kernel counts no processes of root's, and no control group for that can be made"
    return ""


def _trial(starter: Starter, way: Way, home: Home | None) -> str:
    """Why a way does not work here; empty when it does."""
    try:
        confined = starter.start(way, home, _TRIAL, Streams(stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    except (OSError, ValueError) as error:
        return str(error)
    with contextlib.closing(confined):
        try:
            said, complaint = confined.process.communicate(timeout=_TRIAL_S)
        except subprocess.TimeoutExpired:
            return "a trial took too long"
    status = dict(line.split(":", 1) for line in said.decode().splitlines() if ":" in line)
    if not status:
        return complaint.decode(errors="replace").strip().rpartition("\n")[2] or "a trial failed"
    lax = [name for name, value in CONFINED.items() if status.get(name, "").strip() != value]
    return f"it confines nothing: {', '.join(lax)}" if lax else ""
