"""Which stage was at work when a worker died: one with an object that may kill it says so in a file meanwhile.

It knows nothing of engines. On a machine without the job's folder nothing is said.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from transom.target.etl.watch import Watch


@dataclass(frozen=True, slots=True)
class LastStages:
    """Where the workers of a job say it: in its `folder`, a small file for each such object by its number."""

    folder: Path

    def watch(self, n: int, pipeline: str, timeout_s: float) -> Watch:
        """A run's watch that says it."""
        return _SayingWatch(pipeline, timeout_s, self._path(n))

    def take(self, n: int) -> str:
        """What was said last, and forget it; "" for nothing."""
        path = self._path(n)
        try:
            said = path.read_text(encoding="utf-8")
            path.unlink()
        except OSError:
            return ""
        return said

    def _path(self, n: int) -> Path:
        return self.folder / f"stage-{n}"


class _SayingWatch(Watch):
    def __init__(self, pipeline: str, timeout_s: float, path: Path) -> None:
        self._path = path
        self._stage = ""
        super().__init__(pipeline, timeout_s)

    @property
    def stage(self) -> str:
        """The ETL at work."""
        return self._stage

    @stage.setter
    def stage(self, etl: str) -> None:
        if etl != self._stage:
            self._stage = etl
            with suppress(OSError):  # it would be nice to know
                self._path.write_text(etl, encoding="utf-8")

    def settle(self) -> bool:
        """Claim the right to decide the outcome, as every watch; the run has survived."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        return super().settle()
