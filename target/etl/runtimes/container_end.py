"""How a container ended, in words. Pure: it is told what the engine says, and what the container printed last."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from transom.target.etl.runtimes.base import Ended
from transom.target.etl.runtimes.container_plan import MIB
from transom.target.etl.sandbox.cgroups import Hits
from transom.target.etl.sandbox.ending import explain
from transom.target.etl.sandbox.program import Limits

_SIGNAL = 128  # what the number of the signal that ended a process is added to
KILLED = _SIGNAL + signal.SIGKILL  # also all that Podman tells of a container that ran out of memory
# What `container_program` has a program's first process say. A program may say the same: of its own end only.
_REFUSED = re.compile(r"^transom: refused by its limits:((?: (?:memory|processes)=\d{1,9})+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended. `oom` is the engine's word that its memory was the cause, `memory` how much it had."""

    code: int
    oom: bool = False
    memory: int = 0

    def __str__(self) -> str:
        limit = f"its limit is {self.memory / MIB:g} MiB"
        if self.oom:
            return f"out of memory ({limit})"
        if self.code == KILLED:
            return f"signal 9 (killed, or out of memory: {limit})"
        return f"signal {self.code - _SIGNAL}" if self.code > _SIGNAL else f"exit code {self.code}"


def explained(how: Exit, limits: Limits | None, words: str) -> Ended:
    """How a container ended: with `limits` a program's in it, as the sandbox would say it; `words` are its last."""
    if limits is None:
        return Ended(str(how), "memory" if how.oom else "")
    hits = _hits(words, oom=how.oom)
    ending = explain(how.code, limits, hits, words=words)
    # who was killed by whom nobody saw may have been out of memory, which Podman does not tell
    return Ended(str(how if ending.signal and not ending.bound else ending), ending.bound)


def _hits(words: str, *, oom: bool) -> Hits | None:
    told = _REFUSED.findall(words)
    if not told and not oom:
        return None
    counts = dict(each.split("=") for each in told[-1].split()) if told else {}
    return Hits(max(int(counts.get("memory", 0)), int(oom)), int(counts.get("processes", 0)))
