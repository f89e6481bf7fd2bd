"""What the end of a command's program means for the object that it was about."""

from __future__ import annotations

from transom.plugins.contract import Reject, Skip
from transom.target.errors import EtlCrashed, EtlFailed, EtlOutputTooLarge
from transom.target.etl.sandbox.ending import Ending, hint
from transom.target.etl.sandbox.program import Program

REJECTED = 65  # EX_DATAERR of sysexits.h: the input is at fault
SKIPPED = 100
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
    if ending.bound == "output":
        return EtlOutputTooLarge(f"ETL '{etl}' made a file over {ending.limit}", etl=etl)
    said = last_of(words)
    if not ending.bound:
        said += hint(words, program.limits, network=program.network)
    if ending.bound or ending.signal:
        return EtlCrashed(f"ETL '{etl}' crashed: its program ended with {ending}{said}", etl=etl)
    return EtlFailed(f"ETL '{etl}' failed: its program ended with {ending}{said}", etl=etl)


def last_of(words: str) -> str:
    """The last words after a colon, for the end of a message; empty for none."""
    last = _last(words)
    return f": {last}" if last else ""


def _last(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return " / ".join(lines[-_LINES:])[-_CHARS:]
