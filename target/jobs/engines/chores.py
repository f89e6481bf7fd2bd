"""The work that the conformance suite gives an engine: chores that tell, through files in a folder, what they do.

It can be pickled, and needs nothing but the folder.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transom.plugins.manager import Transformers
from transom.target.errors import NoSuchKey
from transom.target.etl.limits import Limits
from transom.target.etl.metrics import EtlMetrics
from transom.target.etl.pipeline import Pipelines
from transom.target.etl.workers import WorkerPool
from transom.target.jobs.site import Site
from transom.target.store.memory import MemoryStore

_PATIENCE_S = 30.0
Act = Literal["echo", "hold", "meet", "die", "die once", "wear out", "raise", "raise oddly"]


@dataclass(frozen=True, slots=True)
class Chore:
    """What to do: `size` is how many bytes to give back, or how many that "meet" wait for each other."""

    n: int
    act: Act = "echo"
    size: int = 0
    place: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, by which process, beside how many others."""

    n: int
    pid: int
    beside: int
    data: bytes = b""
    worn_out: bool = False


class OddError(Exception):
    """An error that can't be made again from its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


@dataclass(frozen=True, slots=True)
class Opening:
    """Opens sites that hold nothing; each leaves a file in `folder`."""

    folder: Path
    fails: bool = False

    def __call__(self) -> Site:
        """Open one. Raises NoSuchKey where it is to fail."""
        if self.fails:
            raise NoSuchKey("no site can be opened")
        (self.folder / f"opened.{os.getpid()}.{time.monotonic_ns()}").touch()
        pipelines = Pipelines(Transformers({}, {}, {}), WorkerPool(self.folder), Limits(), EtlMetrics())
        return Site(MemoryStore(), pipelines, self.folder)


@dataclass(frozen=True, slots=True)
class Chores:
    """Does chores. `folder` gets "begun.N.PID" for each that begins, and "now.N" while it is done; "go" ends a hold."""

    folder: Path

    def __call__(self, _site: Site, chore: Chore, /) -> Report:
        """Do one. Raises NoSuchKey or OddError where it is to raise."""
        now = self.folder / f"now.{chore.n}"
        now.touch()
        beside = len(self.running())
        (self.folder / f"begun.{chore.n}.{os.getpid()}").touch()
        try:
            self._act(chore)
            return Report(chore.n, os.getpid(), beside, bytes(chore.size), chore.act == "wear out")
        finally:
            now.unlink(missing_ok=True)

    def running(self) -> list[str]:
        """The chores that are being done."""
        return [path.name for path in self.folder.glob("now.*")]

    def begun(self, n: int) -> list[int]:
        """The processes that began a chore."""
        return [int(path.suffix[1:]) for path in self.folder.glob(f"begun.{n}.*")]

    def release(self) -> None:
        """Let all that hold go on."""
        (self.folder / "go").touch()

    def _act(self, chore: Chore) -> None:
        if chore.act == "hold":
            wait_until((self.folder / "go").exists)
        elif chore.act == "meet":
            wait_until(lambda: len(list(self.folder.glob("begun.*"))) >= chore.size)
        elif chore.act == "die" or (chore.act == "die once" and len(self.begun(chore.n)) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        elif chore.act == "raise":
            raise NoSuchKey(f"chore {chore.n} raises")
        elif chore.act == "raise oddly":
            raise OddError("odd", "ly")


def wait_until(holds: Callable[[], object]) -> None:
    """Wait until `holds()`; raises TimeoutError after half a minute."""
    end = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.005)
