"""What the end of a program, or what it complains of, means for the object that it was about."""

from __future__ import annotations

import re

from transom.plugins.contract import Reject, Skip
from transom.target.errors import (
    EtlCrashed,
    EtlExited,
    EtlFailed,
    EtlLimitReached,
    EtlOutOfMemory,
    EtlOutputTooLarge,
    EtlTimeout,
    TargetError,
)
from transom.target.etl.sandbox.ending import Bound, Ending, hint
from transom.target.etl.sandbox.program import Limits, Program
from transom.target.etl.transports.outcomes import public

REJECTED = 65  # EX_DATAERR of sysexits.h: the input is at fault
SKIPPED = 100
_OF_BOUND: dict[Bound, type[TargetError]] = {
    "memory": EtlOutOfMemory,
    "processes": EtlLimitReached,
    "scratch": EtlLimitReached,
    "output": EtlOutputTooLarge,
    "time": EtlTimeout,
}
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # what programs send to terminals
_LINES = 3
_CHARS = 600


def failure(etl: str, ending: Ending, words: str, program: Program) -> Exception | None:
    """The error that an end stands for, None for a good one; `words` are the last on standard error."""
    if ending.good:
        return None
    if ending.code == REJECTED:
        return Reject(_last(words) or "its program does not say why")
    if ending.code == SKIPPED:
        return Skip(_last(words))
    how = ended(ending, words, program)
    if ending.bound or ending.signal:
        # which limit one reached that ended by itself is told from its words, which may be anybody's
        return crash(etl, how, ending.bound, breaks=bool(ending.signal))
    return EtlExited(f"ETL '{etl}' failed: {how}", etl=etl)


def ended(ending: Ending, words: str, program: Program) -> str:
    """How a program ended, its last words, and what these have to do with its sandbox."""
    how = f"its program ended with {ending}{_last_of(words)}"
    return how if ending.bound else how + hint(words, program.limits, network=program.network)


def crash(etl: str, how: str, bound: Bound = "", *, breaks: bool = True) -> TargetError:
    """The error of a worker or program that is gone, and had reached a limit if `bound` names one."""
    error = _OF_BOUND.get(bound, EtlCrashed)(f"ETL '{etl}' crashed: {how}", etl=etl)
    error.breaks = breaks
    return error


def with_hint(failed: EtlFailed, limits: Limits, *, network: bool) -> EtlFailed:
    """The error of a worker that lives on, with what its message may have to do with its sandbox.

    No more than that: the message may hold an object's name, or what is in it.
    """
    return EtlFailed(failed.message + hint(failed.message, limits, network=network), etl=failed.etl)


def _last_of(words: str) -> str:
    """The last words after a colon, for the end of a message; empty for none."""
    last = _last(words)
    return f": {last}" if last else ""


def _last(words: str) -> str:
    lines = [line for line in map(public, _COLOUR.sub("", words).splitlines()) if line]
    return " / ".join(lines[-_LINES:])[-_CHARS:]
