"""Says how a sandboxed program ended, and which of its limits was the cause. Pure: it is told what was seen."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Literal

from transom.target.etl.sandbox.cgroups import Hits
from transom.target.etl.sandbox.program import Limits, in_words

_SHELL_SIGNAL = 128  # how a shell, and bubblewrap, tell of a signal: 128 and its number
_LAST_SIGNAL = 64
_NO_MEMORY = re.compile(r"MemoryError|[Cc]annot allocate memory|[Oo]ut of memory|std::bad_alloc|ENOMEM")
_NO_PROCESS = re.compile(r"[Rr]esource temporarily unavailable|can't start new thread|[Cc]annot fork")
_TOO_LARGE = re.compile(r"File too large|EFBIG")
_NO_SPACE = re.compile(r"No space left on device|ENOSPC")
_NO_NETWORK = re.compile(
    r"Network is unreachable|[Tt]emporary failure in name resolution|[Nn]ame or service not known"
    r"|[Cc]ould not resolve host|ENETUNREACH|EAI_AGAIN"
)
_NO_FILE = re.compile(r"(No such file or directory|Permission denied|Read-only file system|ENOENT|EACCES|EROFS)")
_OUTSIDE = re.compile(r"(?<![\w.:/])/(?!tmp/|proc/|dev/|usr/)[\w.-]+/")


Bound = Literal["", "memory", "processes", "output", "scratch", "time"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended: by itself with a `code`, or by a `signal`.

    `bound` is the limit that it reached, if one was the cause, and `limit` that limit in words.
    """

    code: int = 0
    signal: int = 0
    bound: Bound = ""
    limit: str = ""

    @property
    def good(self) -> bool:
        """Whether all went well."""
        return not (self.code or self.signal or self.bound)

    def __str__(self) -> str:
        how = f"signal {self.signal} ({_name(self.signal)})" if self.signal else f"exit code {self.code}"
        return f"{how}, having reached {self.limit}" if self.bound else how


def explain(returncode: int, limits: Limits, hits: Hits | None, *, words: str = "", passed: Bound = "") -> Ending:
    """Tell from an exit status, what the control group counted (None without one), and the last words on stderr.

    `passed` is a limit that somebody outside saw passed and ended the program for.
    """
    code, number = _status(returncode)
    bound = passed or (_reached(number, limits, hits, words) if returncode else "")
    return Ending(code, number, bound, _in_words(bound, limits))


def _complaint(words: str, limits: Limits) -> Bound:
    """The limit that a program complains of, as libraries and shells put it; empty for none."""
    if limits.memory and _NO_MEMORY.search(words):
        return "memory"
    if limits.output and _TOO_LARGE.search(words):
        return "output"
    if limits.pids and _NO_PROCESS.search(words):
        return "processes"
    return "scratch" if _NO_SPACE.search(words) else ""


def hint(words: str, limits: Limits, *, network: bool) -> str:
    """What a program's complaint has to do with its sandbox, in brackets after a space; empty for nothing known."""
    bound = _complaint(words, limits)
    if bound:
        return f" (having reached {_in_words(bound, limits)})"
    if not network and _NO_NETWORK.search(words):
        return " (its sandbox has no network: 'network: true' in its spec gives it one)"
    if _NO_FILE.search(words) and _OUTSIDE.search(words):
        return " (its sandbox shows it the object, a scratch folder and the system's programs, nothing else)"
    return ""


def _status(returncode: int) -> tuple[int, int]:
    if returncode < 0:
        return 0, -returncode
    if _SHELL_SIGNAL < returncode <= _SHELL_SIGNAL + _LAST_SIGNAL:
        return 0, returncode - _SHELL_SIGNAL
    return returncode, 0


def _reached(number: int, limits: Limits, hits: Hits | None, words: str) -> Bound:
    if hits and hits.oom:
        return "memory"
    if number == signal.SIGXFSZ:
        return "output"
    if hits and hits.pids:
        return "processes"
    bound = _complaint(words, limits)
    return "" if bound == "processes" and hits else bound  # they would have been counted


def _in_words(bound: Bound, limits: Limits) -> str:
    return {
        "": "",
        "memory": f"its memory limit of {in_words(limits.memory)}",
        "processes": f"its process limit of {limits.pids}",
        "output": f"its output limit of {in_words(limits.output)}",
        "scratch": f"its scratch limit of {in_words(limits.scratch)}",
        "time": f"its time limit of {limits.wall_s:g} s",
    }[bound]


def _name(number: int) -> str:
    return signal.strsignal(number) or "unknown"
